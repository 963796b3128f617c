"""Names of files that come out of jobs: every system that they go to must be able to say them, each as one file."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from airflow_mlops.exceptions import ContractError

__all__ = ["CollectedNames", "name_problem"]

#: Bytes of a path and of one name in it at most, and folders in one another.
PATH_LIMIT, NAME_LIMIT, DEPTH_LIMIT = 1_000, 255, 32
#: MLflow's client puts paths into addresses as they are: these would end or change one, or be taken for ``/``.
_IN_ADDRESSES = "#?%\\"
#: Controls, lone surrogates (bytes that are no UTF-8), and separators of lines and paragraphs.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_CURE = "Cure: let the model code name it with letters, digits, '_', '-' and '.', no two names alike but for capitals."


#: What begins an address or a drive: ``file:``, ``C:``.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def name_problem(path: str) -> str:
    """What keeps a path from being taken over; empty when nothing does.

    :param path: POSIX path below ``/opt/ml``, as an archive or a folder gives it.
    """
    parts = PurePosixPath(path).parts
    sign = next((sign for sign in path if sign in _IN_ADDRESSES), "")
    broken = {
        "name that leaves its folder": path.startswith("/") or ".." in parts,
        f"path of more than {PATH_LIMIT} bytes or {DEPTH_LIMIT} folders": _bytes(path) > PATH_LIMIT
        or len(parts) > DEPTH_LIMIT,
        f"name of more than {NAME_LIMIT} bytes": any(_bytes(part) > NAME_LIMIT for part in parts),
        "name with a control character, or with bytes that are no UTF-8": any(
            unicodedata.category(sign) in _UNPRINTABLE for sign in path
        ),
        "name that begins or ends with a space": any(part != part.strip() for part in parts),
        "name that begins like an address or a drive, with letters and ':'": any(map(_SCHEME.match, parts)),
        f"name with {sign!r}, which MLflow and object stores take for a part of an address": bool(sign),
    }
    return next((words for words, so in broken.items() if so), "")


class CollectedNames:
    """The names of one collected path, judged one after another.

    :param where: job and path, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen: dict[str, str] = {}
        self._entries: dict[str, set[str]] = {}

    def check(self, path: str) -> None:
        """Take the next name.

        :raises ContractError: a later system could not say it, or not tell it from one that came before.
        """
        if problem := name_problem(path):
            raise self._refused(path, f"is a {problem}")
        parts = PurePosixPath(path).parts
        for length in range(1, len(parts) + 1):
            name = "/".join(parts[:length])
            if (other := self._seen.setdefault(_folded(name), name)) != name:
                what = (
                    "differs only by capitals or by its Unicode form, and some systems take both for one file"
                )
                raise self._refused(path, f"and {_shown(other)} are two names: one {what}")
            self._entries.setdefault("/".join(parts[: length - 1]), set()).add(parts[length - 1])

    def end(self) -> None:
        """Say that there are no more names.

        :raises ContractError: a folder holds one entry alone, of the folder's own name: MLflow lists it as a file.
        """
        for folder, entries in self._entries.items():
            name = PurePosixPath(folder).name
            if entries == {name} and f"{folder}/{name}" not in self._entries:
                what = "is a file alone in a folder of its own name, which MLflow lists as empty"
                raise self._refused(f"{folder}/{name}", what)

    def _refused(self, path: str, what: str) -> ContractError:
        return ContractError(f"{self._where}: {_shown(path)} {what}; it is not taken over. {_CURE}")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _folded(name: str) -> str:
    """The same text for names that a file system without capitals, or with one Unicode form, takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _shown(path: str) -> str:
    text = ascii(path) if name_problem(path) else repr(path)
    return text if len(text) <= 120 else f"{text[:60]}…{text[-40:]}"
