"""Texts that may not be shown, in every spelling in which a log, a message or a document may have them."""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["SHORTEST", "inner_secrets", "open_end", "secret_texts", "sensitive_texts", "spellings", "without"]

#: Characters that a text must have to be hidden, as in Airflow's logs.
SHORTEST = 5
#: What a secret is replaced by.
HIDDEN = "***"
#: JSON texts in one another that are looked into, and escapings of one text by another.
_JSON_DEPTH, _ESCAPED_DEPTH = 8, 3
#: Characters of a text beyond which one escaping is looked for: each one more multiplies what logs are searched for.
_LONG = 256
_NUMBER_WORDS = ("password", "passwd", "secret", "token", "key", "pin", "passphrase")
#: Words in the names of settings that hold secrets, without ``_`` and ``-``.
_SENSITIVE = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "keydata",
    "keyfiledict",
    "authorization",
    "credential",
)
#: Secrets inside a text, which a message may show without the rest: of a URL, a list of settings, a header.
_INSIDE = (
    re.compile(r"://[^\s/:@]*:(?P<secret>[^\s/]+)@"),
    re.compile(
        r"(?:password|passwd|pwd|secret|token|sig|signature|passphrase|key)\s*=\s*"
        r"""(?P<secret>"[^"]+"|'[^']+'|[^\s;&"']+)""",
        re.IGNORECASE,
    ),
    re.compile(r"(?:^|authorization\s*:\s*)(?:bearer|basic|token|apikey)\s+(?P<secret>\S+)", re.IGNORECASE),
)


def secret_texts(value: Any, key: str = "", depth: int = _JSON_DEPTH) -> Iterator[str]:
    """Every text in a value: those of lists, of mappings, of JSON that stands in a text, and the passwords in them.

    A number counts where its key says that it is a secret.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from secret_texts(inner, str(name), depth)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secret_texts(inner, key, depth)
    elif isinstance(value, str):
        yield value
        yield from inner_secrets(value)
        if depth and value.lstrip()[:1] in ("{", "[", '"'):
            yield from secret_texts(_json(value), key, depth - 1)
    elif type(value) in (int, float) and any(word in key.lower() for word in _NUMBER_WORDS):
        yield str(value)


def sensitive_texts(value: Any, depth: int = _JSON_DEPTH) -> Iterator[str]:
    """What is secret in settings that tell more than secrets: passwords in their texts, and what a name says is secret."""
    if isinstance(value, dict):
        for name, inner in value.items():
            plain = re.sub(r"[^a-z]", "", str(name).lower())
            if any(word in plain for word in _SENSITIVE):
                yield from secret_texts(inner, plain, depth)
            else:
                yield from sensitive_texts(inner, depth)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from sensitive_texts(inner, depth)
    elif isinstance(value, str):
        yield from inner_secrets(value)
        if depth and value.lstrip()[:1] in ("{", "[", '"'):
            yield from sensitive_texts(_json(value), depth - 1)


def inner_secrets(text: str) -> Iterator[str]:
    """The passwords and tokens in a text that is a URL, a list of settings or a header; as they are, and decoded."""
    for pattern in _INSIDE:
        for found in pattern.finditer(text):
            secret = found["secret"].strip("\"'")
            yield from dict.fromkeys((secret, unquote(secret)))


def spellings(texts: Iterable[str], shortest: int = SHORTEST) -> tuple[str, ...]:
    """The texts and each of their lines as they are, and as JSON, Python, a URL, HTML, SQL or base64 spells them.

    :param shortest: characters that a text or a line must have.
    :return: the longest first, since one may be a part of another.
    """
    return _spellings(frozenset(texts), shortest)


@lru_cache(maxsize=64)
def _spellings(texts: frozenset[str], shortest: int) -> tuple[str, ...]:
    found: set[str] = set()
    for text in (text for text in texts if len(text.strip()) >= shortest):
        # A line alone may be what a log shows.
        lines = {line.strip() for line in text.splitlines()} - {""}
        for line in lines:
            found |= _written(line)
        if any(len(line) < shortest for line in lines):  # which only the text around it gives away
            found |= _quoted(text)
        found |= {text, text.strip()} | _encoded(text)
    return tuple(
        sorted((text for text in found if len(text) >= shortest), key=lambda text: (-len(text), text))
    )


def without(text: str, hidden: Iterable[str]) -> str:
    """The text without what :func:`spellings` gave."""
    for secret in hidden:
        text = text.replace(secret, HIDDEN)
    return text


def open_end(text: str, hidden: Sequence[str], shortest: int = SHORTEST) -> int:
    """Where a text that was cut off has the beginning of a secret at its end; its length where it has none."""
    end = len(text)
    for secret in hidden:
        few = next((n for n in range(shortest - 1, 0, -1) if text.endswith(secret[:n])), 0)
        end = min(end, len(text) - few)
        at = text.find(secret[: shortest - 1], max(0, len(text) - len(secret)))
        while 0 <= at < end:
            if secret.startswith(text[at:]):
                end = at
            at = text.find(secret[: shortest - 1], at + 1)
    return end


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _written(text: str) -> set[str]:
    """One line as other texts may show it."""
    found = _quoted(text)
    raw = text.encode("utf-8", "surrogatepass")
    latin = text.encode("latin-1", "replace")
    return {
        *found,
        *(quoted.replace("/", r"\/") for quoted in found if "/" in quoted),
        repr(raw)[2:-1],
        repr(raw + b"'\"")[2:-4],
        *_urls(raw),
        raw.hex(),
        raw.hex().upper(),
        html.escape(text),
        html.escape(text, quote=False),
        html.escape(text, quote=False).replace("'", "&#39;").replace('"', "&#34;"),
        html.escape(text, quote=False).replace("'", "&apos;").replace('"', "&quot;"),
        " ".join(text.split()),
        text.replace("'", "''"),
        text.replace("'", "'\"'\"'"),
        # As another character set shows it.
        raw.decode("latin-1"),
        latin.decode("utf-8", "replace"),
        text.encode("ascii", "replace").decode(),
        text.encode("ascii", "xmlcharrefreplace").decode(),
    }


def _urls(raw: bytes) -> set[str]:
    """As parts of addresses have it, also with small letters in its numbers, and when it is encoded twice."""
    found = {*(quote(raw, safe=safe) for safe in ("", "/", "!'()*")), quote_plus(raw)}
    found |= {_HEX.sub(lambda code: code[0].lower(), text) for text in found}
    return found | {quote(text, safe="") for text in found}


def _quoted(text: str) -> set[str]:
    """The text as JSON and Python quote it, also when what they wrote is quoted again."""
    found = {text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))}
    last = set(found)
    for _ in range(_ESCAPED_DEPTH if len(text) <= _LONG else 1):
        last = {escape(each) for each in last for escape in _ESCAPES} - found
        found |= last
    return found


def _forced(spell: Callable[[str], str]) -> Callable[[str], str]:
    # Python escapes an apostrophe only where the whole text has both kinds of quotes.
    return lambda text: spell(text + "'\"")[1:-4]


def _for_html(text: str) -> str:
    """As Go writes JSON: whatever HTML knows is escaped."""
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


_HEX = re.compile(r"%[0-9A-F]{2}")
_CODE = re.compile(r"\\u[0-9a-f]{4}")
_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: _for_html(json.dumps(text)[1:-1]),
    lambda text: _for_html(json.dumps(text, ensure_ascii=False)[1:-1]),
    lambda text: _CODE.sub(lambda code: f"\\u{code[0][2:].upper()}", json.dumps(text)[1:-1]),
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    _forced(repr),
    _forced(ascii),
)


def _encoded(text: str) -> set[str]:
    """The text in base64, on its own and at each place that it may have in something longer."""
    raw = text.encode("utf-8", "surrogatepass")
    found = set(base64.encodebytes(raw).decode().split())
    for shift in range(3):
        # Characters at both ends depend on the neighbours too.
        whole = base64.b64encode(b"\0" * shift + raw).decode()
        first, last = -(-shift * 4 // 3), (len(raw) + shift) * 4 // 3
        found |= {whole[first:last], whole[first:last].replace("+", "-").replace("/", "_")}
    return found
