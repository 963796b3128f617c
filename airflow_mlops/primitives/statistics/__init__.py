"""Statistics that several primitives need: histograms, drift measures, intervals, ranking and clusters."""
