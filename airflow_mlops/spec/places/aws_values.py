"""The values that sections of AWS share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from airflow_mlops.spec.values import no_doubles

Arn = Annotated[
    str, StringConstraints(strict=True, max_length=2048, pattern=r"^arn:aws[a-z\-]*:[a-z0-9\-]+:[^\s]*$")
]
Region = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
AwsId = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z]+-[0-9a-z]+$")]
AwsIds = Annotated[tuple[AwsId, ...], AfterValidator(no_doubles)]

#: What the key ``staging`` is.
STAGING = (
    "s3://bucket/prefix through which data goes in and out. Default: the application's store, if it is on S3."
)
