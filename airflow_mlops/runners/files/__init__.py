"""The files of a job: the archive, the layout below /opt/ml, names, staging, disk limits and secrets."""
