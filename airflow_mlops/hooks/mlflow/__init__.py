"""An MLflow server: runs, metrics, models."""
