"""What runs the author's code in the container: commands, supervision and the transfer of data."""
