"""Sources as they were: the files that a manifest pinned, found again wherever they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.exceptions import SourceError
from airflow_mlops.primitives.sources.base import footer_digest

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from airflow_mlops.primitives.sources.base import Sources

__all__ = ["PinnedFile", "PinnedSources", "find_pinned", "same_content"]

#: Where the content of a file was that has changed since, if somebody kept it.
Recover = Callable[[str, Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class PinnedFile:
    """A pinned file, and what became of it.

    :param pin: as the manifest has it.
    :param state: ``same``; ``changed``, so that ``place`` has another content; or ``gone``.
    :param place: where it is now.
    :param by_footer: nothing but size and footer of the Parquet file says that it is the same.
    """

    pin: Mapping[str, Any]
    state: Literal["same", "changed", "gone"]
    place: str | None = None
    by_footer: bool = False

    @property
    def of(self) -> str:
        """What it was read for: ``examples``, ``view:<name>`` or ``table:<name>``."""
        return str(self.pin.get("of", ""))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        named = {key: self.pin[key] for key in ("of", "pattern", "file") if key in self.pin}
        doubt = {"by_footer": True} if self.by_footer else {}
        return {**named, "state": self.state, "place": self.place, **doubt}


def find_pinned(
    pins: Sequence[Mapping[str, Any]],
    candidates: Callable[[str, str], Sequence[str]],
    sources: Sources,
    elsewhere: Sequence[str] = (),
    recover: Recover = lambda _place, _pin: None,
) -> list[PinnedFile]:
    """Find each pinned file again, by its content; files that nobody pinned are ignored.

    :param pins: pins of files; those of tables are not looked for.
    :param candidates: the files of a pattern now, given ``of`` and ``pattern``.
    :param elsewhere: other files that may be copies of pinned ones; they count only with the pinned content.
    :param recover: gives an earlier content of a place back as a local file, if it can.
    :return: in the order of the pins.
    """
    known: dict[tuple[str, str], Sequence[str]] = {}
    found = []
    for pin in pins:
        if "file" not in pin:
            continue
        group = (str(pin.get("of", "")), str(pin.get("pattern", "")))
        if group not in known:
            known[group] = candidates(*group)
        found.append(_find(pin, known[group], elsewhere, sources, recover))
    return found


def same_content(pin: Mapping[str, Any], place: str, sources: Sources) -> Literal["content", "footer"] | None:
    """What says that a file has the content that was pinned; ``None`` if it has another one, or nothing tells.

    Its SHA-256 decides if both sides have it, or else the etag, unless one of the two is of an upload in parts:
    that depends on how it was cut. What is left then is the footer of a Parquet file, in which a value may
    change without a trace.
    """
    if "://" in place:
        (now,) = sources.pin([place])
    else:
        now = _local_pin(pin, Path(place))
    if now.get("bytes") != pin.get("bytes"):
        return None
    if "sha256" in pin and "sha256" not in now:  # a file that was copied to S3
        now["sha256"] = sources.sha256(place)
    both = {key for key in ("sha256", "etag", "footer_sha256") if key in pin and key in now}
    if "sha256" in both:
        return "content" if pin["sha256"] == now["sha256"] else None
    if "etag" in both:
        etags = {pin["etag"], now["etag"]}
        if len(etags) == 1:
            return "content"
        if not any("-" in etag for etag in etags):
            return None
    return "footer" if "footer_sha256" in both and pin["footer_sha256"] == now["footer_sha256"] else None


@dataclass
class PinnedSources:
    """The sources of one version: names lead to the pinned files and to nothing else.

    :param found: the files by :func:`find_pinned`.
    :param tables: pins of tables.
    :param base: what reads them.
    """

    found: Sequence[PinnedFile]
    tables: Sequence[Mapping[str, Any]]
    base: Sources
    _pins: dict[str, Mapping[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._pins = {file.place: file.pin for file in self.found if file.place and file.state == "same"}

    def find(self, pattern: str, folder: Path | None = None) -> tuple[str, ...]:  # noqa: ARG002 - pins know
        """The files that were pinned for a pattern of the examples, in their order."""
        return self._places(
            lambda file: _is_example(file) and file.pin.get("pattern", pattern) == pattern, pattern
        )

    def of_view(self, name: str, columns: Sequence[str]) -> tuple[str, ...]:
        """The files that were pinned for a feature view, in their order.

        :param columns: what the view reads: in versions of older releases, which pinned the files of all views
            together, these tell which files were its own.
        """
        if any(file.of == f"view:{name}" for file in self.found):
            return self._places(lambda file: file.of == f"view:{name}", f"feature view {name}")
        together = self._places(lambda file: file.of == "features", f"feature view {name}")
        return tuple(place for place in together if set(columns) <= set(self.schema(place)))

    def schema(self, file: str) -> Mapping[str, str]:
        """Column → Arrow type of a Parquet file."""
        return self.base.schema(file)

    def columns(self, file: str) -> list[str]:
        """Columns of a Parquet file, in order."""
        return list(self.schema(file))

    def head(self, file: str) -> bytes:
        """The first bytes of a file."""
        return self.base.head(file)

    def pin(self, files: Sequence[str]) -> list[dict[str, Any]]:
        """The pins of the manifest for what is the same, new ones for what is not."""
        names = {found.place: found.pin["file"] for found in self.found if found.place}
        pins = []
        for file in files:
            pin = self._pins.get(file) or {**self.base.pin([file])[0], "file": names.get(file, file)}
            pins.append({key: value for key, value in pin.items() if key not in ("of", "pattern")})
        return pins

    def pins_of_features(self) -> list[dict[str, Any]]:
        """Pins of all feature files as the manifest has them, as far as they are the same."""
        files = [file for file in self.found if file.of.startswith(("view:", "features")) and file.place]
        own = self.pin([str(file.place) for file in files])
        named = [{key: file.pin[key] for key in ("of", "pattern") if key in file.pin} for file in files]
        return [{**names, **pin} for names, pin in zip(named, own, strict=True)]

    def sha256(self, file: str) -> str:
        """Digest of the whole content of a file."""
        return self.base.sha256(file)

    def check_unchanged(self) -> None:
        """Nothing that is read was found here: every file was compared with its pin."""
        self.base.check_unchanged()

    def register(self, connection: DuckDBPyConnection) -> None:
        """Enable a DuckDB connection to read the files."""
        self.base.register(connection)

    def open_table(
        self, connection: DuckDBPyConnection, name: str, table: Mapping[str, Any], folder: Path | None
    ) -> dict[str, Any]:
        """Open a table at the pinned version.

        :raises SourceError: it is gone, or another table is there now.
        """
        pin = next((pin for pin in self.tables if pin.get("of") == f"table:{name}"), None)
        if pin is None:
            raise SourceError(f"table {name!r} is not among the pinned sources of this version")
        versions = {"delta_version": "version", "iceberg_snapshot": "snapshot"}
        at = {word: pin[key] for key, word in versions.items() if key in pin}
        opened = self.base.open_table(connection, name, {**table, **at}, folder)
        if opened.get("table_id") != pin.get("table_id"):
            raise SourceError(
                f"table {name!r} ({pin['pattern']}) is another table than the pinned one: it was dropped and made "
                "again. Restore it from a backup"
            )
        return opened

    def _places(self, wanted: Callable[[PinnedFile], bool], what: str) -> tuple[str, ...]:
        pinned = [file for file in self.found if wanted(file)]
        places = tuple(dict.fromkeys(file.place for file in pinned if file.place))
        if not places:
            state = (
                f"all {len(pinned)} pinned file(s) are gone"
                if pinned
                else "it is not among the pinned sources"
            )
            raise SourceError(f"{what}: {state}; restore them, and name their folder by --folder")
        return places


def _is_example(file: PinnedFile) -> bool:
    return file.of == "examples" or file.of.startswith("table:")


def _find(
    pin: Mapping[str, Any],
    candidates: Sequence[str],
    elsewhere: Sequence[str],
    sources: Sources,
    recover: Recover,
) -> PinnedFile:
    name = str(pin["file"])
    here = [place for place in candidates if f"/{place}".endswith(f"/{name}")]
    copies = [place for place in elsewhere if place.rpartition("/")[2] == name.rpartition("/")[2]]
    copies.sort(key=lambda place: not f"/{place}".endswith(f"/{name}"))
    doubtful = []
    for place in (*copies, *here):
        told = same_content(pin, place, sources)
        if told == "content":
            return PinnedFile(pin, "same", place)
        doubtful += [place] if told else []
    for place in here:
        if (kept := recover(place, pin)) is not None:
            return PinnedFile(pin, "same", kept)
    if doubtful:
        return PinnedFile(pin, "same", doubtful[0], by_footer=True)
    return PinnedFile(pin, "changed", here[0]) if here else PinnedFile(pin, "gone")


def _local_pin(pin: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the file says about itself now, in the words of the pin."""
    try:
        size = path.stat().st_size
        now: dict[str, Any] = {"bytes": size}
        if size != pin.get("bytes"):
            return now
        with path.open("rb") as file:
            if "sha256" in pin:
                now["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            elif "etag" in pin and "-" not in pin["etag"]:
                # The etag of an object that was uploaded in one piece; no secret depends on it.
                now["etag"] = hashlib.file_digest(file, "md5").hexdigest()
            if "footer_sha256" in pin:
                now["footer_sha256"] = footer_digest(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    return now
