"""How examples are divided."""
