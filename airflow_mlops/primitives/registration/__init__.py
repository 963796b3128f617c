"""The record, card and lineage of a model version."""
