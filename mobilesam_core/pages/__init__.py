"""Pages that need nothing but themselves: markup, style, curves and what they are put together from."""
