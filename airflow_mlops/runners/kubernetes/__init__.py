"""Jobs of Kubernetes: the runner, its manifests, what a state means, and its output."""
