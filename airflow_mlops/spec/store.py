"""``store:``: where datasets, features and predictions are kept."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator

from airflow_mlops.spec.values import FolderPath, complaint

__all__ = ["StoreUri"]

#: Variables and templates, which a folder or a bucket would be called after.
_UNFILLED = re.compile(r"\$\{[^}]*\}?|\$[A-Za-z_]\w*|\{\{.*?(?:\}\}|$)|\{%.*?(?:%\}|$)")
_S3 = re.compile(r"s3://(?:[A-Za-z0-9_.\-]+@)?[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](?:/[^\x00-\x1f\x7f]*)?")


def _store(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if found := _UNFILLED.search(value):
        raise complaint(
            f"has {found[0]}, which nobody fills in",
            expected="the address itself: a folder, or s3://bucket/folder",
            cure="write the address; where installations differ, put it into a defaults.yaml of each",
        )
    scheme, separator, rest = value.partition("://")
    if not separator:
        return value
    if scheme == "s3":
        return _s3(value)
    if scheme != "file":
        raise complaint(
            f"uses {scheme}://, which this version cannot write to yet",
            expected="a folder: /var/lib/airflow-mlops, or s3://bucket/folder",
            cure="mount the bucket as a folder, or use a folder that all workers share",
        )
    if not rest.startswith("/"):
        raise complaint(
            "is not a file URL of this machine",
            expected="file:/// and an absolute path",
            cure="write three slashes: file:///var/lib/airflow-mlops",
        )
    return unquote(urlsplit(value).path)


def _s3(value: str) -> str:
    if not _S3.fullmatch(value):
        raise complaint(
            "is not the address of a bucket",
            expected="s3://bucket/folder, or s3://connection@bucket/folder",
            cure="write s3://my-bucket/mlops",
        )
    return value.rstrip("/")


StoreUri = Annotated[FolderPath, BeforeValidator(_store)]
"""A folder of this machine, or ``s3://[connection@]bucket/folder``."""
