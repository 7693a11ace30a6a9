"""``mobilesam data check``: all that is wrong with a training's data, found before it is trained on."""
