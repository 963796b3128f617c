from __future__ import annotations

import pytest
import yaml

from airflow_mlops.cli.application.assumptions import as_yaml


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        'say "so"',
        "a\\b",
        "a: b",
        "[x]",
        "{y}",
        "N",
        "1.0",
        "\x7f",
        "\x85",
        "\x9f",
        "\u2028",
        "\ufeff",
        "ä ✓",
        " x ",
    ],
)
def test_every_text_is_read_back_as_it_was(text):
    rules = [{"column": text, "one_of": [text, "b"]}]
    assert yaml.safe_load(as_yaml(rules)) == {"assumptions": rules}
