"""The point-in-time join, and the cases that any store's join is held against."""
