"""Weights on disk: key names, safe reading and writing, download, and the state of a run."""
