"""Commands on the YAML files: validate, check, plan, generate, schema, assumptions."""
