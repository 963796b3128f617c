"""Operators that evaluate, test and judge a trained model."""
