"""Typed configuration: pydantic schemas, and reading them from YAML and ``--set`` overrides. Needs no torch."""
