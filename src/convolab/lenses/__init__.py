"""The lenses: what a network makes of one picture, and how far that can be trusted."""
