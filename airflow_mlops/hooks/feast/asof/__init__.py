"""The offline store that joins by one ASOF query in DuckDB."""
