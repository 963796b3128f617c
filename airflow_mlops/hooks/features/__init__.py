"""Feature pipelines: reading sources, transforming, and the published table."""
