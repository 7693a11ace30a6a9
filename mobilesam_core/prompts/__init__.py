"""Prompts: what they are, how training samples them, and how the next click follows from an error."""
