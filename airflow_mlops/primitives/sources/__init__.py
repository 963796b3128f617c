"""Where examples come from, and which content they had."""
