"""Procedurally drawn images: a data set that needs no files, for start weights, demos and tests."""

from mobilesam_core.data.shapes.source import ShapesSource

__all__ = ["ShapesSource"]
