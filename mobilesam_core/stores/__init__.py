"""Features of images on disk: the one store that embedding and distillation write and everything else reads."""
