"""The rules of MLOps in plain functions and frozen values, without Airflow and without a network."""
