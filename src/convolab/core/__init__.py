"""Shared by every layer: errors, atomic file writes, keyed random generators, statistics, the machine, words."""
