"""The section ``training`` and what it holds: resources, tuning, distribution."""
