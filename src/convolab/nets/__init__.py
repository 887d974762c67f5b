"""The networks: how they are built, and how they take pixels."""
