"""What is secret is hidden in every spelling, and line by line."""

from __future__ import annotations

import base64
import html
import json
import re
import time
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest

from airflow_mlops.primitives.texts.secrets import open_end, secret_texts, sensitive_texts, spellings, without

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
#: What Go's encoder of JSON escapes for HTML.
GO = {ord(sign): rf"\u{ord(sign):04x}" for sign in "<>&"}
WAYS = {
    "raw": lambda text: text,
    "JSON": json.dumps,
    "JSON as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"x": text})),
    "JSON in JSON as it is": lambda text: json.dumps(json.dumps({"x": text}, ensure_ascii=False)),
    "JSON by Go": lambda text: json.dumps(text, ensure_ascii=False).translate(GO),
    "JSON with capitals": lambda text: re.sub(
        r"\\u\w{4}", lambda code: rf"\u{code[0][2:].upper()}", json.dumps(text)
    ),
    "hexadecimal": lambda text: text.encode().hex(),
    "a URL in small letters": lambda text: re.sub("%..", lambda code: code[0].lower(), quote(text, safe="")),
    "a URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "XML": lambda text: escape(text, {"'": "&apos;", '"': "&quot;"}),
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


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:Top%2FSecret%401@db/x",
        "https://user:Top%2FSecret%401@tracking.example:5000/api",
        "host=db user=me password='Top/Secret@1' sslmode=require",
        "DefaultEndpointsProtocol=https;AccountKey=Top/Secret@1;EndpointSuffix=core",
        "Bearer Top/Secret@1",
    ],
)
def test_a_password_inside_a_text_is_hidden_without_the_rest_of_it(text):
    said = without("user me: Top/Secret@1 is wrong", spellings(secret_texts({"any": text})))
    assert said == "user me: *** is wrong"
    assert "Top%2FSecret" not in without(
        "Top%2FSecret%401", spellings(sensitive_texts([text, "Top/Secret@1"]))
    )


def test_of_settings_only_what_is_secret_is():
    extra = {
        "region_name": "eu-central-1",
        "aws_secret_access_key": "s3cr3t/+key",
        "kube_config": json.dumps(
            {"users": [{"user": {"client-key-data": "TFMwdEx"}}], "cluster": "production"}
        ),
        "endpoint_url": "https://me:hidden-one@store.example",
        "headers": {"Authorization": "Bearer tok-en-1"},
    }
    found = set(sensitive_texts(extra))
    assert {"s3cr3t/+key", "TFMwdEx", "hidden-one", "tok-en-1"} <= found
    assert not {"eu-central-1", "production", "https://me:hidden-one@store.example"} & found


def test_a_long_text_is_searched_for_passwords_in_a_moment():
    """Never in the square of its length: a token of one word, an address after another."""
    for text in ("a" * 300_000, "://a:" * 60_000, "key " * 75_000, "bearer " * 40_000):
        began = time.process_time()
        list(secret_texts({"any": text}))
        assert time.process_time() - began < 2
