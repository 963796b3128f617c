"""Drawings and style of the HTML pages."""
