"""Dataset versions: manifest, files, digests, comparison, rebuild, retention."""
