"""Operators of a feature pipeline."""
