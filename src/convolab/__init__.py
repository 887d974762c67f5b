"""A laboratory for convolutional networks."""
