"""Git repositories: which commit a branch or tag is at. Only this module knows dulwich."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_mlops.exceptions import ModelCodeUnavailableError, RunnerError
from airflow_mlops.hooks.connections.find import afind_connection
from airflow_mlops.primitives.texts.nearest import nearest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["GitHook"]

#: Seconds for one answer of a server, and for all that a question takes.
TIMEOUT, LONGEST = 20.0, 30.0
#: Refs that a YAML names; a forge has many others.
_REFS = ("refs/heads/", "refs/tags/")
#: Nobody is there to answer a question of ssh, as whether a host is known.
_SSH = "ssh -oBatchMode=yes -oConnectTimeout={seconds}"


class GitHook(BaseHook):
    """
    One git repository, over HTTPS, SSH or a path.

    :param url: as ``git clone`` takes it.
    :param conn_id: Airflow connection with login and password (or token); ``None`` for an anonymous one.
    """

    def __init__(self, url: str, conn_id: str | None = None) -> None:
        super().__init__()
        self.url = url
        self.conn_id = conn_id

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[GitHook]:
        """The hook itself: every question is a connection of its own."""
        yield self

    async def digest(self, ref: str) -> str:
        """Commit of a branch (``main``), a tag (``v1``) or a full ref (``refs/heads/main``).

        :raises ModelCodeUnavailableError: the repository does not answer, or has no such ref.
        """
        login: dict[str, Any] = {}
        if self.conn_id:
            connection = await afind_connection(self.conn_id, ModelCodeUnavailableError)
            login = {"username": connection.login or "", "password": connection.password or ""}
        try:
            refs = await asyncio.wait_for(asyncio.to_thread(self._refs, login), LONGEST)
        except TimeoutError as error:
            raise ModelCodeUnavailableError(
                f"Repository {self.url} does not answer: nothing came within {LONGEST:g} s."
            ) from error
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        # A tag with a message is an object of its own: the one with ^{} is the commit.
        for name in names:
            if commit := refs.get(f"{name}^{{}}") or refs.get(name):
                return commit
        # ^{} is a tag's commit, no ref that can be asked for.
        known = [name for name in refs if name.startswith(_REFS) and not name.endswith("^{}")]
        shown = known if ref.startswith("refs/") else [name.split("/", 2)[2] for name in known]
        raise ModelCodeUnavailableError(
            f"Repository {self.url} has no branch or tag {ref!r}; it has: {nearest_of(set(shown), ref)}."
        )

    def _refs(self, login: dict[str, Any]) -> dict[str, str]:
        try:
            from dulwich.client import get_transport_and_path
        except ImportError as error:
            raise RunnerError(
                "Watching a git repository needs dulwich. Cure: pip install 'airflow-mlops[git]' on the triggerer."
            ) from error
        if self.url.startswith("git://"):
            raise RunnerError(
                f"Repository {self.url} cannot be watched: git:// knows no login and no time limit. Cure: https:// or ssh://."
            )
        try:
            client, path = get_transport_and_path(
                self.url, _settings(), **{key: value for key, value in login.items() if value}
            )
            with _killed_in_time(client):
                found: Any = client.get_refs(path.encode() if isinstance(path, str) else path)
        except Exception as error:  # dulwich, urllib3, and whatever the operating system says
            raise ModelCodeUnavailableError(
                f"Repository {self.url} does not answer: {type(error).__name__}: {error}. Cure: look at its address, and "
                f"at the login of connection {self.conn_id!r}."
            ) from error
        refs = getattr(found, "refs", found)
        return {name.decode(): commit.decode() for name, commit in refs.items() if commit}


def _settings() -> Any:
    """Settings of git that keep a silent server from holding a thread for ever."""
    from dulwich.config import ConfigDict

    settings = ConfigDict()
    settings.set((b"http",), b"timeout", f"{TIMEOUT:g}".encode())
    settings.set((b"core",), b"sshCommand", _SSH.format(seconds=max(1, int(TIMEOUT))).encode())
    return settings


@contextlib.contextmanager
def _killed_in_time(client: Any) -> Iterator[None]:
    """Ends ssh when its server says nothing: it has no limit of its own once it is connected."""
    started: list[Any] = []
    vendor = getattr(client, "ssh_vendor", None)
    if vendor is not None:
        run = vendor.run_command

        def run_command(*words: Any, **options: Any) -> Any:
            started.append(run(*words, **options))
            return started[-1]

        vendor.run_command = run_command
    timer = threading.Timer(LONGEST, lambda: [one.proc.kill() for one in started])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
