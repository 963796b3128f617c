"""The artifact store, on a file system or on S3."""
