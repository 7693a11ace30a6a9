"""All of the toolkit on one page: ``mobilesam demo``."""
