"""Jobs as processes of the worker's machine."""
