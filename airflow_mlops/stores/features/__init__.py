"""Feature tables and the staged rows that are handed from task to task."""
