"""Segmenting images with a trained model."""
