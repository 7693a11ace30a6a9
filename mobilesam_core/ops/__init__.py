"""Pure functions on arrays and tensors: boxes, masks, frames, metrics, drawing."""
