"""The machine-learning loop on Apache Airflow, from one YAML file per application."""

__version__ = "0.1.0"
