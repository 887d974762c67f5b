"""Pixels and labels: picture sets in memory, where they come from, and single photos."""
