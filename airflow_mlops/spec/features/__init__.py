"""The sections of a feature pipeline: extract, transform, views."""
