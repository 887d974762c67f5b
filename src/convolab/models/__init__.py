"""The networks, and the contract that they take pixels in [0, 1]."""
