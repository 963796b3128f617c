"""Datasets: examples, versions, their manifests, comparison and retention."""
