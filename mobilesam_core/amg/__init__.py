"""Automatic mask generation: everything in an image, without a prompt."""
