"""What is secret is hidden in every spelling, and line by line."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from airflow_mlops.primitives.secrets import open_end, secret_texts, spellings, without

KEY = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg+kqhkiG9w0BAQ/FAASCBK\ncwggSjAgEAAoIBAQC7VJTUt9Us8cKj==\nQ=+/\n"
    "-----END PRIVATE KEY-----\n"
)
WORDS = {
    "a quote": 'pass"word',
    "an apostrophe": "pass'word",
    "both": "pass\"wo'rd",
    "a backslash": "pass\\word\\",
    "non-ASCII": "pässwörd-密碼-🔑",
    "a tab and a control character": "pass\tw\x1bord",
    "what a URL escapes": "p@ss/w:rd &<x>+%",
    "a key": KEY,
}
WAYS = {
    "raw": lambda text: text,
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"x": text})),
    "JSON in JSON as it is": lambda text: json.dumps(json.dumps({"x": text}, ensure_ascii=False)),
    "repr": repr,
    "ascii": ascii,
    "repr among quotes": lambda text: repr(f"'\"{text}\"'"),
    "repr in JSON": lambda text: json.dumps(f"KeyError: {text!r}"),
    "repr in repr": lambda text: repr(repr({"x": text})),
    "bytes": lambda text: repr(text.encode()),
    "a URL": lambda text: quote(text, safe=""),
    "a path": quote,
    "a form": quote_plus,
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 within more": lambda text: base64.b64encode(b"x" + text.encode() + b"yz").decode(),
    "line by line": lambda text: "\n".join(f"  | {line}" for line in text.splitlines()),
}


def shown(text, secret):
    """Parts of a secret that a text has, in whatever spelling: eight characters of a line are one."""
    parts = {line[at : at + 8] for line in secret.splitlines() for at in range(max(1, len(line) - 7))}
    return {part for part in parts if len(part) > 5 and part in text}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("word", WORDS)
def test_no_spelling_of_a_secret_is_shown(word, way):
    secret = WORDS[word]
    said = without(f"it says {WAYS[way](secret)} and more", spellings([secret]))
    assert "***" in said
    assert said.startswith("it says ")
    assert said.endswith(" and more")
    assert shown(said, secret) == set()
    # Nothing but marks, quotes and what is too short to be hidden.
    rest = said[len("it says ") : -len(" and more")].replace("***", "")
    assert len(rest) < 40


def test_texts_are_found_in_lists_mappings_and_json_in_texts():
    inner = json.dumps({"private_key": KEY, "deep": json.dumps([{"token": "t0ken-of-it"}])})
    extra = {
        "keyfile": inner,
        "list": [["first", {"x": "second"}]],
        "pin": 1234567,
        "port": 54321,
        "on": True,
    }
    found = set(secret_texts(extra))
    assert {KEY, "t0ken-of-it", "first", "second", "1234567"} <= found
    assert not found & {"54321", "True"}
    text = json.dumps(extra, indent=2)
    assert shown(without(text, spellings(found)), KEY) == set()
    assert "t0ken-of-it" not in without(text, spellings(found))


def test_json_that_is_none_or_too_deep_is_only_a_text():
    for text in ("{no json", "[" * 100_000):
        assert list(secret_texts(text)) == [text]


def test_a_word_is_cheap_and_short_ones_stay_readable():
    assert len(spellings(["correct-horse"])) < 10
    assert spellings(["abcd", " ", ""]) == ()
    assert without("true and 1234", spellings(["true", "1234"])) == "true and 1234"


def test_the_beginning_of_a_secret_at_the_end_of_a_cut_text():
    hidden = spellings(["hunter22", "hunt"])
    for length in range(1, 8):
        assert open_end("hello " + "hunter22"[:length], hidden) == len("hello ")
    assert open_end("hello.", hidden) == len("hello.")
