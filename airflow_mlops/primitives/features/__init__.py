"""Rules of feature pipelines: windows, checks, publication, plans for the registry."""
