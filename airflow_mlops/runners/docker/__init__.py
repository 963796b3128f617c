"""Jobs as containers of Docker Engines: the runner, its limits, GPU leases, several nodes, data shared by jobs."""
