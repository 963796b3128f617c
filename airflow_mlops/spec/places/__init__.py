"""The places where jobs run, as the YAML describes them."""
