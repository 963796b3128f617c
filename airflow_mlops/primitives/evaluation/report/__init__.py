"""The report of an evaluation: what it says, its figures, and the page that shows them."""

from __future__ import annotations

from airflow_mlops.primitives.evaluation.report.content import build_report
from airflow_mlops.primitives.evaluation.report.page import render_page

__all__ = ["build_report", "render_page"]
