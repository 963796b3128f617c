"""Operators that make, split and validate dataset versions."""
