"""How good a model's masks are on a data set, from boxes, points and corrective clicks, or without a prompt."""
