"""Dataset versions in the artifact store."""
