"""An asynchronous session with a Docker Engine: what the triggerer asks, in one event loop with many others."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiodocker

#: Bytes in front of each frame of a container's output.
HEADER = 8
#: 1 (stdout) or 2 (stderr), and a piece of output.
Frame = tuple[int, bytes]


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

    async def wait(self, name: str, seconds: float) -> None:
        """Until a container has ended, or is gone, but no longer than ``seconds``."""
        from aiodocker import DockerError

        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(seconds):
                    await self._client.containers.container(name).wait()
            except DockerError as error:
                if error.status != 404:
                    raise

    async def frames(
        self, name: str, since: str = "", *, newest: int | None = None, follow: bool = False
    ) -> AsyncIterator[list[Frame]]:
        """Pieces of a container's output as the engine sends them, each beginning with its timestamp.

        The stream ends with the container's when following. aiodocker's own reader drops which stream a piece
        belongs to and decodes across pieces, so that a timestamp can be lost in the middle of a character.

        :param since: Unix time with nanoseconds, or empty for all.
        :param newest: pieces that are enough; the engine begins to look for them at the end.
        :return: some at a time, as they arrive.
        """
        import aiohttp

        client = self._client
        await client.version()  # settles api_version
        params = {"stdout": "1", "stderr": "1", "timestamps": "1", "follow": str(int(follow))}
        if since:
            params["since"] = since
        if newest is not None:
            params["tail"] = str(newest)
        url = f"{client.docker_host}/{client.api_version}/containers/{name}/logs"
        async with client.session.get(
            url, params=params, timeout=aiohttp.ClientTimeout(total=None)
        ) as response:
            if response.status in (404, 409):  # gone, or being removed
                return
            response.raise_for_status()
            async for frames in _frames(response.content.iter_any()):
                yield frames


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Frame]]:
    """Cut the engine's stream, which frames each piece of output: a byte for the stream, three of nothing, four of size.

    :raises asyncio.IncompleteReadError: it ends in the middle of a frame.
    """
    rest = b""
    async for chunk in chunks:
        rest = rest + chunk if rest else chunk
        begin, size, frames = 0, len(rest), []
        while size - begin >= HEADER:
            end = begin + HEADER + int.from_bytes(rest[begin + 4 : begin + HEADER], "big")
            if end > size:
                break
            frames.append((rest[begin], rest[begin + HEADER : end]))
            begin = end
        rest = rest[begin:]
        yield frames
    if rest:
        raise asyncio.IncompleteReadError(rest, None)
