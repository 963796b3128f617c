"""Airflow connections: found, masked, and handed to model code as secrets."""
