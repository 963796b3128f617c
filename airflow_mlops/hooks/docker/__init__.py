"""Docker Engines: containers, images, GPUs, and the ways to an engine."""
