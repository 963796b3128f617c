"""The life of a job between its operator and its runner: files, output, checkpoints, deadlines, owners, ending."""
