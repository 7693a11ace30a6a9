"""The ``mobilesam`` command: a thin Typer layer over :mod:`mobilesam_core`."""
