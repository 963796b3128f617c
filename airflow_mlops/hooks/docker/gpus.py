"""Which GPUs a Docker Engine has: by its connection, by its own words, else by a look from inside a container."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import GpusMissingError, RunnerError
from airflow_mlops.primitives.training.gpus import Gpu, parse_nvidia_smi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_mlops.hooks.docker.hook import DockerEngineHook

#: Seconds for which the answer of an engine is remembered: GPUs do not come and go by the minute.
REMEMBERED = 300.0
#: What a container may do with its GPUs.
CAPABILITIES = ["gpu", "compute", "utility"]
#: Label of the container that looks for GPUs.
PROBE_LABEL = "ai.airflow-mlops.probe"
#: Seconds that its look may take, and after which it is taken for one whose creator died.
LOOK, FORGOTTEN = 30.0, 600.0

log = logging.getLogger(__name__)

_known: dict[str, tuple[float, tuple[Gpu, ...]]] = {}


def gpus_of_engine(hook: DockerEngineHook, image: str) -> tuple[Gpu, ...]:
    """GPUs of the engine, remembered for some minutes.

    :param image: id of an image on the engine, for a container that runs ``nvidia-smi -L`` when nobody else says.
    :raises GpusMissingError: when the engine has none, or nobody can tell.
    """
    if given := hook.address.gpus:
        return tuple(Gpu(gpu, kind) for gpu, kind in given)
    until, found = _known.get(hook.address.url, (0.0, ()))
    if time.monotonic() < until:
        return found
    found = tuple(_told(hook.info()) or _seen(hook, image))
    _known[hook.address.url] = time.monotonic() + REMEMBERED, found
    return found


def device_requests(gpus: Sequence[str]) -> list[dict[str, Any]]:
    """What ``POST /containers/create`` takes as ``HostConfig.DeviceRequests``: exactly these GPUs."""
    if not gpus:
        return []
    if all("=" in gpu for gpu in gpus):  # nvidia.com/gpu=…: names of the Container Device Interface
        return [{"Driver": "cdi", "DeviceIDs": list(gpus)}]
    return [{"Driver": "", "DeviceIDs": list(gpus), "Capabilities": [CAPABILITIES]}]


def _told(info: Mapping[str, Any]) -> list[Gpu]:
    """GPUs that the engine itself names: its ``node-generic-resources``, or devices that it discovered (CDI)."""
    named = [resource.get("NamedResourceSpec") or {} for resource in info.get("GenericResources") or []]
    generic = [Gpu(str(each["Value"])) for each in named if "GPU" in str(each.get("Kind", "")).upper()]
    if generic:
        return generic
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    # One GPU has several names there: its number, its UUID, and a part of "all".
    return [Gpu(device) for device in devices if device.startswith("nvidia.com/") and "=GPU-" in device]


def _seen(hook: DockerEngineHook, image: str) -> list[Gpu]:
    _remove_forgotten(hook)
    name = f"mlops-gpu-probe-{uuid.uuid4().hex[:12]}"
    hook.create(name, _probe(image))
    try:
        hook.start(name)
        _wait_for_end(hook, name)
        output = hook.output(name)
    except RunnerError as error:
        if error.retriable or isinstance(error, GpusMissingError):
            raise
        raise GpusMissingError(f"No GPU can be found: {error}") from error
    finally:
        _remove(hook, name)
    found = parse_nvidia_smi(output)
    if not found:
        raise GpusMissingError(
            f"Docker Engine {hook.address.url} has no GPU: nvidia-smi -L says {output[:500]!r}. Cure: look at the "
            'driver of that machine, or name its GPUs in the extra of the connection: {"gpus": [{"uuid": "GPU-…"}]}.'
        )
    return found


def _probe(image: str) -> dict[str, Any]:
    return {
        "Image": image,
        "Entrypoint": ["nvidia-smi"],
        "Cmd": ["-L"],
        "Labels": {PROBE_LABEL: "nvidia-smi"},
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [CAPABILITIES]}],
        },
    }


def _wait_for_end(hook: DockerEngineHook, name: str) -> None:
    """Return when the container has ended: a driver that hangs would hold whoever waits for it for ever."""
    until, pause = time.monotonic() + LOOK, 0.05
    while ((hook.inspect(name) or {}).get("State") or {}).get("Running"):
        if time.monotonic() >= until:
            raise GpusMissingError(
                f"Docker Engine {hook.address.url}: nvidia-smi -L has not ended in {LOOK:.0f} s. Cure: restart the driver "
                "of that machine, or the machine; nvidia-smi must answer there."
            )
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)


def _remove_forgotten(hook: DockerEngineHook) -> None:
    """Remove what somebody left who was killed while he looked."""
    for container in hook.containers([PROBE_LABEL]):
        if time.time() - container["Created"] > FORGOTTEN:
            _remove(hook, container["Id"])


def _remove(hook: DockerEngineHook, name: str) -> None:
    try:
        hook.remove(name)
    except RunnerError as error:  # a process that hangs in its driver cannot be killed
        log.warning("The container %s that looked for GPUs is left for the next look: %s", name, error)
