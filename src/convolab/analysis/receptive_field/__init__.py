"""Which input pixels can reach a cell of a feature map."""
