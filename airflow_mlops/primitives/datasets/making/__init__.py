"""How a dataset version is made: join, split, validate, write chunks."""
