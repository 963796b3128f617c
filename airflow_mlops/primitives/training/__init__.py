"""Training: descriptions, parameters, search spaces, outcomes and tuning."""
