"""A dataset in memory-mapped files, for processes that share it."""

import weakref
from pathlib import Path

import torch

from convolab.data.catalog import load
from convolab.data.memmap import memmapped_dataset, read_memmap


def test_a_dataset_that_is_mapped_can_be_dropped_from_memory_while_it_is_used(tmp_path: Path) -> None:
    splits = load("digits")
    expected, images = splits.test.images.clone(), weakref.ref(splits.train.images)
    with memmapped_dataset(splits, tmp_path / "images") as folder:
        del splits
        assert images() is None
        assert torch.equal(read_memmap(folder).test.images, expected)
    assert not (tmp_path / "images").exists()
