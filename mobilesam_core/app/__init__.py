"""``mobilesam app``: a page to segment images with clicks and boxes."""
