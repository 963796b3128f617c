"""Where data is read: SQL, HTTP, files, objects on S3, Delta and Iceberg tables."""
