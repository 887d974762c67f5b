"""Splits of a dataset with some of them changed."""

from typing import Any

from convolab.data.splits import DatasetSplits


def with_splits(splits: DatasetSplits, **changes: Any) -> DatasetSplits:
    """A copy with other values of the constructor's arguments."""
    test = splits.test if splits.has_test else None
    values = {
        "train": splits.train, "test": test, "unreadable": splits.unreadable, "validation": splits.validation,
        "notes": splits.notes,
    }  # fmt: skip
    return DatasetSplits(**{**values, **changes})
