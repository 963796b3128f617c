"""DuckDB's SQL: identifiers and literals, names of types, values that are there, values as text."""
