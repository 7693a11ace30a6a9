"""Telling what a folder of somebody's data is: its format, its splits, how its masks are to be read."""
