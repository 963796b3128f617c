"""Gaps of Airflow that the package works around; each module names its issue and can go when that is closed."""
