"""Which Airflow this is, for what it leaves in places that several of them use."""

from __future__ import annotations

import hashlib


def installation() -> str:
    """Short name of this Airflow: equal in all of its processes, different from another one's.

    It comes of ``[api] base_url``: Airflows that share an engine and a store each need their own.
    """
    from airflow.sdk.configuration import conf

    address = str(conf.get("api", "base_url", fallback="") or "")
    return hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:12]
