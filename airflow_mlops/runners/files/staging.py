"""Data of jobs in places without an archive API: through a bucket, by addresses signed for the job; see ADR 15.

The interface for runners::

    staging = Staging("s3://conn@bucket/prefix", time_limit=7200, limit_bytes=4 * 1024**3)
    staged = staging.stage(job, grace=30)   # uploads the job's tree; may be repeated
    staged.environment                      # {"MLOPS_TRANSFER": address}: secret, for the container alone
    staging.stage_shared(job)               # keeps input/data for jobs that name it as ``shared``
    staging.delivered(name)                 # what the container says it left; None when it said nothing
    staging.collect(name, ("model", "output"), destination)   # False when the container said nothing
    staging.cleanup(name)                   # removes everything of the job; may be repeated

Everything of a job lies below ``<uri>/jobs/<job name>/``. What runs in the container is
:mod:`airflow_mlops.contract.container.transfer`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.protocol.paths import TRANSFER_VARIABLE
from airflow_mlops.exceptions import ContractError, MLOpsError, RunnerError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.primitives.texts.documents import json_text
from airflow_mlops.runners.files.archive import CHUNK, copy, unpack
from airflow_mlops.runners.files.layout import (
    InputFile,
    checked_name,
    checked_path,
    folders_of,
    input_tree,
    shared_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow_mlops.hooks.store.staging import StagingStore
    from airflow_mlops.runners.protocol import ContainerJob

#: Version of the document that ``airflow_mlops.contract.container.transfer`` reads and of the one it writes.
VERSION = 1
#: Bytes of one object of results: what is sent again when a connection breaks.
PIECE = 1024**3
#: Seconds for sending the results, beyond the job's own time.
LAST_WORDS = 3600.0
#: Bytes of the document that comes out of the container.
_DONE_LIMIT = 1024**2


@dataclass(frozen=True)
class Staged:
    """A job whose data waits in the store.

    :param environment: variables that the container needs; the address in there is as good as a password.
    """

    environment: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Delivered:
    """What a container says that it left in the store.

    :param exit_code: of the job's command.
    :param problem: why not everything is there, or why the command was not started.
    :param outputs: folder → its pieces, each ``{"size": …, "sha256": …}``.
    """

    exit_code: int
    problem: str
    outputs: Mapping[str, list[dict[str, Any]]]


class Staging:
    """
    Moves jobs' data through a bucket.

    :param uri: ``s3://[conn_id@]bucket/prefix``.
    :param limit_bytes: bytes that are taken over at most, for each of ``model``, ``output`` and ``checkpoints``.
    :param time_limit: seconds that a job may take, from its submit to its end; an hour is added for its results. S3
        allows seven days, and a temporary login only its own time.
    """

    def __init__(self, uri: str, limit_bytes: int = 4 * 1024**3, time_limit: float = 24 * 3600.0) -> None:
        self.uri = uri
        self.limit_bytes = limit_bytes
        self.time_limit = time_limit

    def below(self, folder: str) -> Staging:
        """The same in a folder of it; whichever is used first opens the store for both."""
        inner = Staging(f"{self.uri.rstrip('/')}/{folder}", self.limit_bytes, self.time_limit)
        inner.__dict__["store"] = self.store.below(folder)
        return inner

    def stage(self, job: ContainerJob, grace: float = 30) -> Staged:
        """Upload what the job needs.

        :param grace: seconds between SIGTERM and SIGKILL where the job will run.
        """
        prefix, files = self._prefix(job.name), input_tree(job)
        document = {
            "version": VERSION,
            "job": job.name,
            "grace": grace,
            "folders": folders_of(files),
            "piece": PIECE,
            "outputs": {name: self._targets(prefix, name) for name in _outputs(files)},
            "done": self._signed("put_object", f"{prefix}done.json"),
            "inputs": [*self._sign(self._upload(prefix, files)), *self._sign(self._shared(job))],
        }
        self.store.put(f"{prefix}transfer.json", json_text(document).encode())
        return Staged({TRANSFER_VARIABLE: self._signed("get_object", f"{prefix}transfer.json")})

    def stage_shared(self, job: ContainerJob) -> None:
        """Keep the job's inputs below ``input/data``, unless they are there; :meth:`cleanup` of its name removes them."""
        prefix = self._prefix(job.name)
        if self.store.read(f"{prefix}shared.json") is None:
            kept = self._upload(prefix, shared_files(job))
            self.store.put(f"{prefix}shared.json", json_text(kept).encode())

    def delivered(self, name: str) -> Delivered | None:
        """What the container left; ``None`` when it did not say that it had finished.

        :raises ContractError: it says what it cannot mean.
        """
        content = self.store.read(f"{self._prefix(name)}done.json")
        return None if content is None else parse_delivered(content, name)

    def collect(self, name: str, paths: tuple[str, ...], destination: Path) -> bool:
        """Copy files and folders below ``/opt/ml`` into ``destination``, as ``Runner.collect`` says.

        :return: ``False`` when the container handed nothing over: it was killed, or its image cannot do it.
        """
        delivered = self.delivered(name)
        if delivered is None:
            return False
        if delivered.problem and delivered.exit_code == 0:
            raise ContractError(f"Job {name}: {delivered.problem}")
        by_folder: dict[str, list[str]] = {}
        for path in map(checked_path, paths):
            by_folder.setdefault(path.split("/")[0], []).append(path)
        for folder, wanted in by_folder.items():
            if folder in delivered.outputs:
                self._collect_folder(name, folder, delivered.outputs[folder], wanted, destination)
        return True

    def _collect_folder(
        self, name: str, folder: str, pieces: list[dict[str, Any]], wanted: list[str], destination: Path
    ) -> None:
        stream = self._pieces(name, folder, pieces)
        if wanted == [folder]:
            unpack(stream, folder, destination, self.limit_bytes, name)
            return
        destination.mkdir(parents=True, exist_ok=True)
        with scratch_folder(destination) as scratch:
            unpack(stream, folder, Path(scratch), self.limit_bytes, name)
            for path in wanted:
                copy(Path(scratch), path, destination, self.limit_bytes, name)

    def cleanup(self, name: str) -> None:
        """Remove everything of the job from the store."""
        self.store.remove_all(self._prefix(name))

    def silent(self, name: str) -> MLOpsError:
        """The error for a job that succeeded and handed nothing over."""
        return ContractError(
            f"Job {name} ended with exit code 0 and handed nothing over: its image does not know {TRANSFER_VARIABLE}. Cure: begin "
            'its entrypoint with python3 -m airflow_mlops.contract run --, as ENTRYPOINT ["python3", "-m", '
            '"airflow_mlops.contract", "run", "--", "sh", "/entry.sh"]; code that ends with main(…) needs nothing.'
        )

    # How it lies there -------------------------------------------------------------------------

    @cached_property
    def store(self) -> StagingStore:
        """The corner of the bucket.

        :raises StoreError: ``uri`` is no address of a bucket.
        """
        from airflow_mlops.hooks.store.staging import StagingStore

        return StagingStore.at(self.uri)

    def _prefix(self, name: str) -> str:
        return f"jobs/{checked_name(name)}/"

    def _signed(self, method: str, key: str) -> str:
        return self.store.signed(method, key, self.time_limit + LAST_WORDS)

    def _targets(self, prefix: str, output: str) -> list[str]:
        # One more: the headers of an archive's members take room, too.
        count = -(-self.limit_bytes // PIECE) + 1
        return [self._signed("put_object", _piece(prefix, output, number)) for number in range(count)]

    def _upload(self, prefix: str, files: Sequence[InputFile]) -> list[dict[str, Any]]:
        """Put files into the store: where each belongs, its key, its size and its digest."""
        from airflow_mlops.hooks.store.base import in_parallel

        def upload(number: int) -> dict[str, Any]:
            # By number: a name may have signs that a key must not have.
            file, key = files[number], f"{prefix}in/{number:06d}"
            size, digest = digest_of(file)
            self.store.put(key, file.content)
            return {"path": file.path, "key": key, "size": size, "sha256": digest}

        return in_parallel(upload, range(len(files)))

    def _shared(self, job: ContainerJob) -> list[dict[str, Any]]:
        if not job.shared:
            return []
        kept = self.store.read_json(f"{self._prefix(job.shared)}shared.json")
        if kept is None:
            raise RunnerError(f"Job {job.name} wants the data of {job.shared}, which is not there any more.")
        return list(kept)

    def _sign(self, kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "path": file["path"],
                "url": self._signed("get_object", file["key"]),
                "size": file["size"],
                "sha256": file["sha256"],
            }
            for file in kept
        ]

    def _pieces(self, name: str, folder: str, pieces: list[dict[str, Any]]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            digest = hashlib.sha256()
            for chunk in self.store.chunks(_piece(self._prefix(name), folder, number), piece["size"]):
                digest.update(chunk)
                yield chunk
            if digest.hexdigest() != piece["sha256"]:
                raise RunnerError(f"Job {name}, {folder}: piece {number} is not what the job sent.")


def parse_delivered(content: bytes, name: str) -> Delivered:
    """Read what a container said; it may be anything.

    :raises ContractError: naming what is wrong with it.
    """
    if len(content) > _DONE_LIMIT:
        raise ContractError(
            f"Job {name}: its last word has {len(content)} bytes; at most {_DONE_LIMIT} are read."
        )
    try:
        said = json.loads(content)
        outputs = {
            checked_path(str(folder)): [
                {"size": _count(piece["size"]), "sha256": str(piece["sha256"])} for piece in pieces
            ]
            for folder, pieces in said["outputs"].items()
        }
        delivered = Delivered(_count(said["exit_code"]), str(said.get("problem") or "")[:2000], outputs)
        version = said["version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RunnerError) as error:
        raise ContractError(
            f"Job {name}: its last word cannot be read ({type(error).__name__}: {error}). It is {content[:200]!r}."
        ) from error
    if version != VERSION:
        raise ContractError(
            f"Job {name} speaks version {str(version)[:20]} of the transfer, expected {VERSION}. Cure: rebuild the image "
            "with this airflow_mlops release."
        )
    return delivered


def digest_of(file: InputFile) -> tuple[int, str]:
    """Size and SHA-256 of an input.

    :raises RunnerError: it cannot be read.
    """
    if isinstance(file.content, bytes):
        return len(file.content), hashlib.sha256(file.content).hexdigest()
    digest, size = hashlib.sha256(), 0
    try:
        with file.content.open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise RunnerError(f"Input {file.path} cannot be read: {error}.") from error
    return size, digest.hexdigest()


def _outputs(files: Sequence[InputFile]) -> list[str]:
    """Folders that go up, what must not be lost first; a model that came in does not go out again."""
    comes_in = any(file.path.startswith("model/") for file in files)
    return ["checkpoints", "output", *([] if comes_in else ["model"])]


def _piece(prefix: str, output: str, number: int) -> str:
    return f"{prefix}out/{output}.{number:03d}"


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
