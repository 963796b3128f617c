"""From staged rows to rows as they are published."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.exceptions import ContractError
from airflow_mlops.hooks.scratch import scratch_folder
from airflow_mlops.operators.errors import MLOpsTask, airflow_errors
from airflow_mlops.operators.model_code import ModelCodeOperator
from airflow_mlops.primitives.container_output.parquet_cells import judge_cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

    from airflow_mlops.runners.protocol import JobState
    from airflow_mlops.stores.features.handover import Staging

STEP = "transformed"
#: What a step hands on as it is.
_CARRIED = ("window", "watermark", "started")


class TransformFeaturesOperator(MLOpsTask):
    """
    Make features of the extracted rows by one DuckDB query, in which they are the table ``extracted``.

    Returns what :class:`ExtractFeaturesOperator` returns, for the rows that the query gives.

    :param features: name of the feature pipeline.
    :param store: URI of the artifact store.
    :param extracted: what the extraction returned.
    :param sql: one SELECT.
    :param tables: further tables of the query: name → Parquet, CSV or JSON files by path or pattern, also on S3.
    :param memory: how much may be held in memory, such as ``2GB``; the rest is spilled to disk.
    """

    template_fields: Sequence[str] = ("features", "store", "extracted", "sql", "tables")
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql"}
    ui_color = "#d8e8dc"

    def __init__(
        self,
        *,
        features: str,
        store: str,
        extracted: Any,
        sql: str,
        tables: dict[str, str] | None = None,
        memory: str = "2GB",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.store = store
        self.extracted = extracted
        self.sql = sql
        self.tables = tables
        self.memory = memory

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Run the query and stage what it gives."""
        from airflow_mlops.hooks.sources.transform import transform
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.features.handover import Staging

        with airflow_errors(), scratch_folder() as folder:
            staging, scratch = Staging.at(open_store(self.store), self.extracted["staged"]), Path(folder)
            if staging.record(STEP) is None:
                staging.check_writable()
                step = str(self.extracted["staged"]).rpartition("/")[2]
                file = transform(
                    self.sql,
                    staging.files(step, scratch),
                    self.tables or {},
                    scratch,
                    memory=self.memory,
                )
                stage(staging, [file], self.extracted)
            result = staging.result(STEP)
        self.log.info("The query made %d rows of %d", result["rows"], self.extracted["rows"])
        return result


class PrepareFeaturesOperator(ModelCodeOperator):
    """
    Make features of the extracted rows by the model code's ``prepare``, wherever ``runner`` says.

    The extracted rows are ``input/data/extracted/*.parquet``, the prepared ones ``output/data/*.parquet``.
    Returns what :class:`TransformFeaturesOperator` returns.

    :param features: name of the feature pipeline.
    :param extracted: what :class:`ExtractFeaturesOperator` returned.
    :param columns: roles of the columns for ``mlops.json``: ``keys``, ``timestamp``, ``features``.
    :param parameters: parameters for the model code.
    """

    command: ClassVar[str] = "prepare"
    template_fields: Sequence[str] = (*ModelCodeOperator.template_fields, "features", "extracted")

    def __init__(
        self,
        *,
        features: str,
        extracted: Any,
        columns: dict[str, Any] | None = None,
        parameters: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("application", features)
        super().__init__(**kwargs)
        self.features = features
        self.extracted = extracted
        self.columns = columns
        self.parameters = parameters

    def inputs(self, context: Context, scratch: Path) -> dict[str, str]:  # noqa: ARG002
        """The extracted rows."""
        files = self._staging().files(str(self.extracted["staged"]).rpartition("/")[2], scratch)
        return {f"input/data/extracted/{number:05d}.parquet": str(file) for number, file in enumerate(files)}

    def config(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """The columns by role, and the parameters."""
        return {"columns": self.columns or {}, "parameters": self.parameters or {}}

    def take_over(self, context: Context, output: Path, state: JobState) -> dict[str, Any]:  # noqa: ARG002
        """Stage what the job prepared."""
        files = sorted((output / "output/data").glob("*.parquet"))
        if not files:
            raise ContractError(
                f"{self._code_name()} prepared and wrote no output/data/*.parquet. Cure: write the prepared rows "
                "there, and an empty table when there are none."
            )
        judge_cells(files, f"{self._code_name()}: output/data")
        staging = self._staging()
        if staging.record(STEP) is None:
            with _contract_errors(self._code_name()):
                stage(staging, _alike(files, self._code_name()), self.extracted)
        return staging.result(STEP)

    def _staging(self) -> Staging:
        from airflow_mlops.hooks.store.open import open_store
        from airflow_mlops.stores.features.handover import Staging

        return Staging.at(open_store(self.store), self.extracted["staged"])


def stage(staging: Staging, files: Sequence[Path], earlier: Mapping[str, Any]) -> None:
    """Keep the files of this step, with what the earlier one found out."""
    import pyarrow.parquet as pq

    schemas = [pq.read_schema(file) for file in files]
    facts = {
        "rows": sum(pq.read_metadata(file).num_rows for file in files),
        "columns": {field.name: str(field.type) for field in schemas[0]},
        **{name: earlier.get(name) for name in _CARRIED},
    }
    staging.keep(STEP, files, facts)


def _alike(files: list[Path], name: str) -> list[Path]:
    """The files with rows, or one without when none has any.

    :raises SourceError: one lacks a column that others have, or has it of another kind.
    """
    import pyarrow.parquet as pq

    from airflow_mlops.database import connect
    from airflow_mlops.hooks.sources.files import check_types

    # An empty file may have lost its types: pandas knows none of a column without values.
    files = [file for file in files if pq.read_metadata(file).num_rows] or files[:1]
    with contextlib.closing(connect()) as connection:
        check_types(connection, [str(file) for file in files], f"{name} prepared")
    return files


@contextlib.contextmanager
def _contract_errors(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ContractError(
            f"{name} prepared a file in output/data that cannot be read as Parquet: {error}. Cure: write it whole"
        ) from error
