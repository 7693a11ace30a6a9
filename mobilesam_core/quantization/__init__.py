"""Exported models with smaller numbers, and what that costs."""
