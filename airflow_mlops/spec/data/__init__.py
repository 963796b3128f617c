"""The sections about datasets: examples, split and assumptions."""
