"""What every floor stands on: errors, whole-file writes, keyed randomness, intervals."""
