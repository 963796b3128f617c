"""Texts: JSON documents, secrets in every spelling, names that are alike."""
