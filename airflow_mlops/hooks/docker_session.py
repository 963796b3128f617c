"""An asynchronous session with a Docker Engine: what the triggerer asks, in one event loop with many others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker


class EngineSession:
    """What the triggerer asks of an engine. Made by :meth:`DockerEngineHook.session`."""

    def __init__(self, client: aiodocker.Docker) -> None:
        self._client = client

    async def inspect(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of a container; ``None`` when there is none."""
        from aiodocker import DockerError

        try:
            return dict(await self._client.containers.container(name).show())
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    async def stop(self, name: str, grace: int) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds; no error when it is over or gone."""
        from aiodocker import DockerError

        try:
            await self._client.containers.container(name).stop(t=grace)
        except DockerError as error:
            if error.status not in (304, 404):
                raise

    async def frames(self, name: str, since: str, *, follow: bool) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of a container's output as the engine sends them, each beginning with its timestamp.

        The stream ends with the container's when following. aiodocker's own reader drops which stream a piece
        belongs to and decodes across pieces, so that a timestamp can be lost in the middle of a character.

        :param since: Unix time with nanoseconds, or empty for all.
        :return: pairs of 1 (stdout) or 2 (stderr) and the piece.
        """
        import aiohttp

        client = self._client
        await client.version()  # settles api_version
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": str(int(follow))}
        if since:
            params["since"] = since
        url = f"{client.docker_host}/{client.api_version}/containers/{name}/logs"
        async with client.session.get(
            url, params=params, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:
            if response.status in (404, 409):  # gone, or being removed
                return
            response.raise_for_status()
            while True:
                try:
                    header = await response.content.readexactly(8)
                except asyncio.IncompleteReadError as error:
                    if error.partial:
                        raise
                    return
                yield header[0], await response.content.readexactly(int.from_bytes(header[4:], "big"))
