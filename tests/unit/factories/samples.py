"""Applications as YAML, and what is built of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

YAML: dict[str, Any] = {
    "application": "tiny",
    "description": "A tiny application.",
    "owner": "ml-team",
    "tags": ["demo"],
    "store": "/s",
    "code": {"image": "tiny:1"},
    "provisioning": {
        "features": None,
        "examples": {"parquet": "*.parquet", "keys": ["id"], "timestamp": "at", "targets": ["y"]},
    },
}


def write(folder: Path, name: str = "tiny", **keys: Any) -> Path:
    """Write an application's YAML (JSON is YAML); ``keys`` replace its own."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({**YAML, "application": name, **keys}, indent=1))
    return path
