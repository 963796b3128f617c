"""A job's data as SageMaker takes and gives it: channels in, two archives and a folder of checkpoints out.

Counterpart of :mod:`airflow_mlops.contract.container.channels`.
"""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_mlops.contract.container.channels import CHANNEL, FOLDER
from airflow_mlops.exceptions import RunnerError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.runners.files.archive import CHUNK, check_amount, copy, unpack_into
from airflow_mlops.runners.files.layout import checked_path, input_tree
from airflow_mlops.runners.files.names import CollectedNames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_mlops.runners.files.staging import Staging
    from airflow_mlops.runners.protocol import ContainerJob

CHECKPOINTS = "checkpoints"
#: What SageMaker writes itself.
_ITS_OWN = "input/config/hyperparameters.json"


def stage_channels(staging: Staging, job: ContainerJob) -> dict[str, str]:
    """Upload what the job needs; checkpoints go to where SageMaker takes them from.

    :return: channel → its address.
    """
    from airflow_mlops.hooks.store.base import in_parallel

    files = [file for file in input_tree(job) if file.path != _ITS_OWN]
    keys = [_key(file.path) for file in files]
    in_parallel(
        lambda number: staging.store.put(f"jobs/{job.name}/{keys[number]}", files[number].content),
        range(len(files)),
    )
    channels = sorted({key.split("/")[1] for key in keys if key.startswith("channels/")})
    return {channel: address(staging, job.name, f"channels/{channel}") + "/" for channel in channels}


def address(staging: Staging, name: str, below: str) -> str:
    """``s3://bucket/prefix/jobs/<name>/<below>``, as AWS reads it."""
    return staging.store.address(f"jobs/{name}/{below}")


def collect_archives(
    staging: Staging, name: str, archives: str, paths: tuple[str, ...], destination: Path
) -> None:
    """Copy what the job wrote into ``destination``, as ``Runner.collect`` says.

    :param archives: key of the folder with ``model.tar.gz`` and ``output.tar.gz``.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with scratch_folder(destination) as folder:
        scratch = Path(folder)
        wanted = list(map(checked_path, paths))
        for top in dict.fromkeys(path.split("/")[0] for path in wanted):
            if top == CHECKPOINTS:
                _checkpoints(staging, name, scratch / top)
            elif top == "model":
                _unpack(staging, f"{archives}/model.tar.gz", scratch / top, name)
            elif top == "output" and _unpack(staging, f"{archives}/output.tar.gz", scratch / ".data", name):
                _put_back(scratch / ".data", scratch / top)
        for path in wanted:
            copy(scratch, path, destination, staging.limit_bytes, name)


def _key(path: str) -> str:
    """Where a file of the job goes: its split's channel, the checkpoints, or the channel of all the rest."""
    parts = PurePosixPath(path).parts
    if parts[:2] == ("input", "data") and len(parts) > 3:
        return "/".join(("channels", *parts[2:]))
    return path if parts[0] == CHECKPOINTS else f"channels/{CHANNEL}/{path}"


def _checkpoints(staging: Staging, name: str, target: Path) -> None:
    prefix, where = f"jobs/{name}/{CHECKPOINTS}/", f"Job {name}, {CHECKPOINTS}"
    sizes = staging.store.sizes(prefix)
    check_amount(len(sizes), sum(sizes.values()), staging.limit_bytes, where)
    names = CollectedNames(where)
    for key, size in sizes.items():
        path = key.removeprefix(prefix)
        names.check(path)
        file = target / checked_path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as sink:
            for chunk in staging.store.chunks(key, size):
                sink.write(chunk)


def _unpack(staging: Staging, key: str, folder: Path, name: str) -> bool:
    size = staging.store.sizes(key).get(key)
    if size is None:
        return False
    folder.mkdir(parents=True)
    where = f"Job {name}, {PurePosixPath(key).name}"
    unpack_into(_gunzip(staging.store.chunks(key, size)), folder, staging.limit_bytes, where)
    return True


def _put_back(data: Path, output: Path) -> None:
    """From what SageMaker keeps of ``output/`` back to what it was."""
    if (data / FOLDER).is_dir():
        shutil.move(data / FOLDER, output)
    output.mkdir(exist_ok=True)
    if any(data.iterdir()):
        data.replace(output / "data")


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpacked bytes, never more than a chunk at a time: an archive may unpack to a thousand times its size."""
    unzip: Any = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            rest = chunk
            while rest and not unzip.eof:
                yield unzip.decompress(rest, CHUNK)
                rest = unzip.unconsumed_tail
    except zlib.error as error:
        raise RunnerError(f"An archive of results is broken: {error}.") from error
