"""
Feast's registry as one object on S3, opened by an Airflow connection.

Feast's own class takes its endpoint from ``FEAST_S3_ENDPOINT_URL`` and its login from the worker's
environment, and of two changes at once it loses one. This one writes only what was read last
(``If-Match``): whoever comes second is told so, and tries again. This module imports Feast and is
imported by it.
"""

# ruff: noqa: TID253 - Feast loads this module by name when it needs it, nobody else does
from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto

from airflow_mlops.exceptions import FeatureStoreConflictError, FeatureStoreError
from airflow_mlops.hooks.s3.client import (
    DEFAULT_CONN_ID,
    is_conflict,
    is_missing,
    s3_client,
    s3_errors,
    split_s3,
)

if TYPE_CHECKING:
    from pathlib import Path

    from feast.repo_config import RegistryConfig

__all__ = ["ConnectionS3RegistryStore"]


class ConnectionS3RegistryStore(RegistryStore):
    """
    A registry at ``s3://[conn_id@]bucket/key``.

    :param registry_config: its ``path``, and ``aws_conn_id`` unless the path names a connection.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path | None) -> None:  # noqa: ARG002 - Feast's
        default = getattr(registry_config, "aws_conn_id", None) or DEFAULT_CONN_ID
        self._at = split_s3(registry_config.path, default)
        if not self._at.key:
            raise FeatureStoreError(f"registry {self._at.url} is a bucket; name an object, as …/registry.db")
        self._more = dict(registry_config.s3_additional_kwargs or {})
        self._client = s3_client(self._at.conn_id)
        self._etag: str | None = None

    def get_registry_proto(self) -> Any:
        """Read the registry.

        :raises FileNotFoundError: there is none yet, as Feast expects it.
        """
        from botocore.exceptions import ClientError

        with s3_errors(f"reading Feast's registry {self._at.url}"):
            try:
                answer = self._client.get_object(Bucket=self._at.bucket, Key=self._at.key)
            except ClientError as error:
                if not is_missing(error):
                    raise
                answer = None
        if answer is None:
            self._etag = None
            raise FileNotFoundError(f"no registry at {self._at.url}")
        with s3_errors(f"reading Feast's registry {self._at.url}"):
            data = answer["Body"].read()
        self._etag = answer["ETag"]
        return RegistryProto.FromString(data)

    def update_registry_proto(self, registry_proto: Any) -> None:
        """Write the registry, if nobody else did since it was read.

        :raises FeatureStoreConflictError: somebody did.
        """
        from botocore.exceptions import ClientError

        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        condition = {"IfMatch": self._etag} if self._etag else {"IfNoneMatch": "*"}
        with s3_errors(f"writing Feast's registry {self._at.url}"):
            try:
                answer = self._client.put_object(
                    Bucket=self._at.bucket,
                    Key=self._at.key,
                    Body=registry_proto.SerializeToString(),
                    **condition,
                    **self._more,
                )
            except ClientError as error:
                if not (is_conflict(error) or is_missing(error)):
                    raise
                raise FeatureStoreConflictError(
                    f"registry {self._at.url} was changed by somebody else meanwhile; read it and try again"
                ) from error
        self._etag = answer["ETag"]

    def teardown(self) -> None:
        """Delete the registry."""
        with s3_errors(f"deleting Feast's registry {self._at.url}"):
            self._client.delete_object(Bucket=self._at.bucket, Key=self._at.key)
