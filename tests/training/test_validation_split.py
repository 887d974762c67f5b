"""Datasets that have validation images of their own, and those without test images, in training and testing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.memmap import read_memmap, write_memmap
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.run_records import data_key
from convolab.training.setup import train_validation_split

RNG = np.random.default_rng(0)


def save_noise(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index}.png")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Sixteen images to train on and six to validate on, none to test on."""
    for name in ("cat", "dog"):
        save_noise(tmp_path / "pets" / "train" / name, 8)
        save_noise(tmp_path / "pets" / "val" / name, 3)
    return tmp_path / "pets"


def recipe_of(folder: Path, **data: object) -> Recipe:
    values = {"name": f"folder:{folder}", "image_size": 8, "augment": [], **data}
    training = {"epochs": 1, "batch_size": 4}
    return Recipe.from_dict({"data": values, "model": {"name": "shallow_net"}, "training": training})


def test_all_of_a_datasets_own_validation_images_validate_and_all_of_train_is_trained_on(pets):
    splits = load(f"folder:{pets}", image_size=8)
    train, validation = train_validation_split(recipe_of(pets), splits)
    assert (train, validation) == (splits.train, splits.validation)
    limited, validation = train_validation_split(recipe_of(pets, limit=4), splits)
    assert (len(limited), validation) == (4, splits.validation)


@pytest.mark.parametrize("fraction", [0, 0.2])
def test_a_fraction_to_hold_out_is_refused_where_there_are_validation_images(pets, fraction, tmp_path):
    with pytest.raises(LabError, match=r"data\.validation is .*, but pets has 6 validation images of its own"):
        Run.start(recipe_of(pets, validation=fraction), load(f"folder:{pets}", image_size=8), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_names_its_validation_images_and_notices_when_they_change(pets, tmp_path):
    run = Run.start(recipe_of(pets), load(f"folder:{pets}", image_size=8), tmp_path / "run")
    data = json.loads((run.folder / "summary.json").read_text())["data"]
    assert data["validation_sha256"] == run.load_splits().validation.fingerprint
    without = {name: value for name, value in data.items() if name != "validation_sha256"}
    assert run.summary["data_key"] == data_key(data) != data_key(without)
    assert Run(run.folder).resume().status == "finished"
    (pets / "val" / "cat" / "0.png").unlink()
    with pytest.raises(LabError, match=r"the validation images of .* have changed"):
        run.load_splits()


@pytest.mark.slow
def test_a_run_without_test_images_says_so_and_can_be_tested_once_there_are_some(pets, tmp_path):
    run = Run.start(recipe_of(pets), load(f"folder:{pets}", image_size=8), tmp_path / "run")
    with pytest.raises(LabError, match=r"pets has no test images, .*: add some \(a folder test"):
        run.test()
    assert run.test_result is None
    for name in ("cat", "dog"):
        save_noise(pets / "test" / name, 2)
    assert run.test().count == 4


def test_a_run_of_a_dataset_without_validation_images_is_named_as_ever(tmp_path):
    splits = load("digits")
    assert list(splits.fingerprints) == ["train_sha256", "test_sha256"]
    assert data_key({"train_sha256": "a", "test_sha256": "b"}) == "c8687a08aa5d"


def test_validation_images_are_shared_with_workers(pets, tmp_path):
    splits = load(f"folder:{pets}", image_size=8)
    write_memmap(splits, tmp_path / "mapped")
    mapped = read_memmap(tmp_path / "mapped")
    assert mapped.fingerprints == splits.fingerprints
    assert torch.equal(mapped.validation.images, splits.validation.images)
    assert not mapped.has_test
