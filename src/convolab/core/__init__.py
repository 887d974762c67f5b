"""What every other package stands on: errors, whole-file writes, keyed randomness, statistics."""
