"""Operators that monitor a model: profile, performance, decision and alarm."""
