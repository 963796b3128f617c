"""``code:``: where the model code is, and who looks for new."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from airflow_mlops.spec.values import (
    ConnectionId,
    Flag,
    FolderPath,
    ImageReference,
    PositiveDuration,
    Section,
    Text,
    complaint,
    duration,
)


class ProcessCode(Section):
    """Model code that runs as a process of the worker (``run_on: process``)."""

    directory: FolderPath = Field(description="Folder in which the command starts; relative to this file.")
    command: tuple[Text, ...] = Field(
        min_length=1,
        description="Command line in front of the contract's word; `python` is the worker's own interpreter.",
    )


class Watch(Section):
    """Who notices new model code, which is a reason to train."""

    image: Flag = Field(default=True, description="A new digest behind the tag of code.image.")
    git: Text | None = Field(default=None, description="URL of a git repository: a new commit of ref.")
    ref: Text = Field(default="main", description="Its branch or tag.")
    every: PositiveDuration = Field(default=duration("1m"), description="Pause between two looks.")
    connection: ConnectionId | None = Field(
        default=None,
        description="Airflow connection with the registry's login: of type docker, or aws for ECR. Default: "
        "training.docker.connection, for ECR aws_default.",
    )
    git_connection: ConnectionId | None = Field(
        default=None, description="Airflow connection with the login of the git repository."
    )

    @field_validator("git")
    @classmethod
    def _no_login(cls, value: str | None) -> str | None:
        if value and holds_login(value):
            raise complaint(
                "holds a login, which events and logs would show",
                expected="https://git.example.com/team/code.git",
                cure="remove it from the address, and name a connection with it in git_connection",
            )
        return value


class Code(Section):
    """The model code: an image, a command line, or both."""

    image: ImageReference | None = Field(
        default=None,
        description="Image with the label ai.airflow-mlops.contract=1, for every run_on but process.",
    )
    process: ProcessCode | None = Field(default=None, description="Command line, for run_on: process.")
    watch: Watch | None = Field(
        default=None, description="Look for new model code; {} with everything as it is by default."
    )

    @field_validator("watch")
    @classmethod
    def _something_to_watch(cls, value: Watch | None, info: ValidationInfo) -> Watch | None:
        if value is None:
            return None
        image = info.data.get("image")
        if value.image and image and not _changes(image):
            raise complaint(
                f"cannot notice anything: {image} is no tag of a registry",
                expected="registry.example.com/name:tag",
                cure="name the registry in code.image, or write image: false",
                at=("image",),
            )
        if not value.git and not (value.image and image):
            raise complaint("watches nothing", expected="code.image, or git", cure="add git, or remove watch")
        return value


def holds_login(url: str) -> bool:
    """Whether an address holds a password, or for HTTP a name: it may be a token. ``ssh://git@host`` holds none."""
    parts = urlsplit(url)
    return parts.password is not None or (parts.scheme in ("http", "https") and parts.username is not None)


def _changes(image: str) -> bool:
    host, slash, path = image.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost") and "@" not in path
