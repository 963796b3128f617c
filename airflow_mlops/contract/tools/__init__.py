"""Commands for continuous integration: check an image, read its labels, announce a version."""
