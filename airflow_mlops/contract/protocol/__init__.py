"""What the container and Airflow agree on: paths, documents, results, progress and the kinds of failures."""
