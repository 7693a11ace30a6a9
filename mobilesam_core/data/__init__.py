"""Data sets: one file a format, each yields :class:`~mobilesam_core.data.sample.Sample`."""
