"""The loop of a tuning: trials as jobs, and the document that survives it."""
