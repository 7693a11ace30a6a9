"""Losses of masks and of predicted IoU, and their weighted sum."""
