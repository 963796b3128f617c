"""Feast: its registry, its stores, and our own offline store for training sets."""
