"""Predictions: a batch and what it must hold."""
