"""AWS services that run containers and keep their output."""
