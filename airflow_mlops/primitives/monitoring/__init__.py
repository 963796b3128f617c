"""Monitoring: labels, performance and the decision to raise an alarm."""
