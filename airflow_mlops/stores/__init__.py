"""What the product remembers: typed records over the artifact store, the only modules that spell its keys."""
