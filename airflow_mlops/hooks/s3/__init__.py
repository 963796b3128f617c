"""S3 and what speaks its protocol: clients, errors and an end to every request."""
