"""From the text of a YAML file to a checked specification, or to every problem with its place and cure."""
