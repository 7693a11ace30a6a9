"""Learning from a teacher: its features, and what they are good for."""
