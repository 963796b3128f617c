"""Operators that describe, tune and train model code, and close its MLflow runs."""
