"""``python -m mobilesam_cli``."""

from mobilesam_cli.app import main

main()
