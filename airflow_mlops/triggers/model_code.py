"""Notices new model code: a new digest behind an image's tag, a new commit on a branch."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamProducer

from airflow_mlops.exceptions import ModelCodeUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from airflow.triggers.shared_stream import AdvanceItem

__all__ = ["NewModelCodeTrigger"]

#: Seconds between two looks at what does not answer, at most.
LONGEST_PAUSE = 900.0
#: Keys in the asset state store of the application's code asset, each with what is watched behind it.
SEEN, HEALTH = "seen", "health"

#: Who waits for what, in this triggerer: stream → name → triggers. One poll serves all of a stream.
_WATCHERS: dict[Hashable, dict[str, list[NewModelCodeTrigger]]] = defaultdict(lambda: defaultdict(list))


class Code(NamedTuple):
    """What is behind a name at one moment: a digest or a commit."""

    name: str
    digest: str


class Seen(NamedTuple):
    """What was seen last.

    :param changes: how often it has changed so far, so that no two changes are the same event.
    """

    digest: str
    changes: int


class _Session(Protocol):
    async def digest(self, name: Any) -> str: ...


class NewModelCodeTrigger(BaseEventTrigger):
    """
    Fire when there is new model code behind a tag of an image, or behind a ref of a git repository.

    The event is ``{"reason": "new_code", "id", "code", "digest", "before", "message"}``. What was seen last
    (``seen_image``, ``seen_git``), and how the watching goes (``health_image``, ``health_git``: ``ok``, ``at``,
    ``error``, ``failures``), is in the state of the application's code asset. The
    first look only remembers. All applications of one registry are served by one poll; an event that was not
    committed is sent again, with the same ``id``.

    :param application: name of the application.
    :param image: ``registry/repository:tag``; or
    :param git: URL of a repository, with
    :param ref: its branch or tag.
    :param conn_id: Airflow connection with the login.
    :param every: seconds between two looks.
    """

    def __init__(
        self,
        *,
        application: str,
        image: str | None = None,
        git: str | None = None,
        ref: str = "main",
        conn_id: str | None = None,
        every: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if bool(image) == bool(git):
            raise ValueError("NewModelCodeTrigger watches either an image or a git repository.")
        _refuse_login(git)
        self.application = application
        self.image = image
        self.git = git
        self.ref = ref
        self.conn_id = conn_id
        self.every = every

    @property
    def name(self) -> str:
        """What is watched, within its stream."""
        return self.image or self.ref

    @property
    def code(self) -> str:
        """What is watched, for people."""
        return self.image or f"{self.git}@{self.ref}"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What is stored of the trigger: JSON values, nothing secret."""
        names = ("application", "image", "git", "ref", "conn_id", "every")
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            name: getattr(self, name) for name in names
        }

    # One poll for many -------------------------------------------------------------------------

    def shared_stream_key(self) -> Hashable:
        """One stream a registry or repository, login and rhythm."""
        place = self.git or (self.image or "").partition("/")[0]
        return ("model_code", place, self.conn_id or "", str(self.every))

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """The poll of the whole stream."""
        return CodeProducer(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Events of this trigger: what is behind its name, when it is not what was seen last."""
        with self._watching():
            async for code in shared_stream:
                if code.name != self.name:
                    continue
                before = await self.seen()
                if before is None:
                    await self.remember(code.digest)
                elif before.digest != code.digest:
                    yield self._event(code.digest, before)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same by itself, where nothing is shared."""
        producer = CodeProducer(self)

        async def alone() -> AsyncIterator[Code]:
            async for code, _ in producer.open_stream():
                yield code
                await self.remember(code.digest)

        async for event in self.filter_shared_stream(alone()):
            yield event

    def open_source(self) -> AbstractAsyncContextManager[_Session]:
        """Whom to ask."""
        if self.git:
            from airflow_mlops.hooks.git.repository import GitHook

            return GitHook(self.git, self.conn_id).session()
        from airflow_mlops.hooks.registry import RegistryHook

        return RegistryHook((self.image or "").partition("/")[0], self.conn_id).session()

    def question(self, name: str) -> Any:
        """A name as the source takes it."""
        if self.git:
            return name
        from airflow_mlops.hooks.registry import ImageName

        return ImageName.parse(name)

    # Memory ------------------------------------------------------------------------------------

    async def seen(self) -> Seen | None:
        """What was seen last; ``None`` at the first look."""
        known: Any = await self.asset_state_store.aget(self._key(SEEN)) if self.asset_state_store else None
        if isinstance(known, Mapping):
            return Seen(str(known["digest"]), int(known["changes"]))
        return Seen(str(known), 0) if known else None  # a digest alone, as it was written before

    async def remember(self, digest: str) -> None:
        """Write down what was seen, once its event is committed."""
        before = await self.seen()
        if self.asset_state_store and (before is None or before.digest != digest):
            now: Any = Seen(digest, before.changes + 1 if before else 0)._asdict()
            await self.asset_state_store.aset(self._key(SEEN), now)

    async def report(self, error: str, failures: int) -> None:
        """Write down how the watching goes."""
        if self.asset_state_store:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            state: Any = {
                "ok": not error,
                "at": now,
                "error": error[:500],
                "failures": failures,
                "code": self.code,
            }
            await self.asset_state_store.aset(self._key(HEALTH), state)

    def _key(self, about: str) -> str:
        """Keys are short; one application may watch an image and a repository."""
        return f"{about}_{'git' if self.git else 'image'}"

    def _event(self, digest: str, before: Seen) -> TriggerEvent:
        from airflow_mlops.primitives.reasons import CodeChange

        change = CodeChange(self.code, digest, before.digest, before.changes + 1)
        return TriggerEvent(change.to_json())  # type: ignore[no-untyped-call]

    @contextmanager
    def _watching(self) -> Iterator[None]:
        watchers = _WATCHERS[self.shared_stream_key()]
        watchers[self.name].append(self)
        try:
            yield
        finally:
            watchers[self.name].remove(self)
            if not watchers[self.name]:
                del watchers[self.name]


class _Look:
    """What is known of one name."""

    def __init__(self) -> None:
        self.told = ""
        self.by: tuple[int, ...] = ()
        self.failures = 0
        self.due = 0.0


class CodeProducer(SharedStreamProducer):
    """
    Asks one registry or repository for everything that the triggers of a stream watch.

    It never raises: whatever fails is reported, and tried again later and later. What cannot be reported, because the
    state store does not answer, is in the triggerer's log.

    :param first: a trigger of the stream.
    """

    def __init__(self, first: NewModelCodeTrigger) -> None:
        self._first = first
        self._watchers = _WATCHERS[first.shared_stream_key()]
        self._looks: dict[str, _Look] = defaultdict(_Look)

    async def open_stream(self) -> AsyncIterator[tuple[Code, Any]]:
        """What is behind each name, when it changes, and when somebody new wants to know."""
        while True:
            try:
                async with self._first.open_source() as source:
                    while True:
                        for name in list(self._watchers):
                            if code := await self._look(source, name):
                                yield code, (code, self._looks[name].by)
                        await asyncio.sleep(self._pause())
            except Exception as error:  # noqa: BLE001 - one that is raised here would end the watching for all
                self._first.log.warning("Watching %s failed: %s", self._first.code, error)
                await self._report_all(str(error))
                await asyncio.sleep(self._first.every)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Remember what was committed; what was not is told again."""
        for item in batch:
            (name, digest), told = item.broker_payload
            if not item.outcome.is_clean:
                self._looks[name].told = ""
                continue
            for watcher in list(self._watchers.get(name, ())):
                # Whoever came later has yet to be told.
                if id(watcher) in told and not await self._remembered(watcher, digest):
                    self._looks[name].told = ""

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        """One name does not wait for another."""
        return str(broker_payload[0].name)

    async def _look(self, source: _Session, name: str) -> Code | None:
        look = self._looks[name]
        watchers = tuple(id(watcher) for watcher in self._watchers.get(name, ()))
        if time.monotonic() < look.due and watchers == look.by:
            return None
        try:
            digest = await source.digest(self._first.question(name))
        except Exception as error:  # noqa: BLE001 - one that is raised here would end the watching for all
            await self._failed(name, look, error)
            return None
        look.due = time.monotonic() + self._first.every * random.uniform(0.9, 1.1)  # noqa: S311
        if look.failures or watchers != look.by:
            look.failures = 0
            await self._report(name, "", 0)
        if digest == look.told and watchers == look.by:
            return None
        look.told, look.by = digest, watchers
        return Code(name, digest)

    async def _failed(self, name: str, look: _Look, error: Exception) -> None:
        look.failures += 1
        asked = error.retry_after if isinstance(error, ModelCodeUnavailableError) else None
        pause = max(asked or 0.0, min(self._first.every * 2**look.failures, LONGEST_PAUSE))
        look.due = time.monotonic() + pause
        look.by = tuple(id(watcher) for watcher in self._watchers.get(name, ()))
        self._first.log.warning(
            "Watching %s failed %d time(s), next look in %.0f s: %s", name, look.failures, pause, error
        )
        await self._report(name, str(error), look.failures)

    async def _remembered(self, watcher: NewModelCodeTrigger, digest: str) -> bool:
        try:
            await watcher.remember(digest)
        except Exception as error:  # noqa: BLE001 - told again, it is the same event
            self._first.log.warning("What was seen of %s could not be written down: %s", watcher.code, error)
            return False
        return True

    async def _report(self, name: str, error: str, failures: int) -> None:
        for watcher in list(self._watchers.get(name, ())):
            try:
                await watcher.report(error, failures)
            except Exception as refused:  # noqa: BLE001 - nobody may see how it goes, but it goes on
                self._first.log.warning(
                    "How watching %s goes could not be written down: %s", watcher.code, refused
                )

    async def _report_all(self, error: str) -> None:
        for name in list(self._watchers):
            await self._report(name, error, 1)

    def _pause(self) -> float:
        """Short enough to notice a new trigger soon, whatever the rhythm."""
        return min(self._first.every, 5.0)


def _refuse_login(git: str | None) -> None:
    """What is watched is named in events, states and logs."""
    from airflow_mlops.spec.code import holds_login

    if git and holds_login(git):
        raise ValueError(
            "NewModelCodeTrigger: the address in git holds a login, which events and logs would show. Cure: write it "
            "without, and name a connection with the login in conn_id."
        )
