"""Evaluation: measures, evidence, slices, test cases and the gate that decides."""
