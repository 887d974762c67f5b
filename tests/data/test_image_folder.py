"""The user's own datasets: folders of images."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.core.errors import LabError
from convolab.data import image_io
from convolab.data.catalog import load
from convolab.data.image_io import read_image_file, resize_and_center_crop

RED, GREEN = (220, 30, 40), (20, 200, 60)


def save_image(
    path: Path, color: tuple[int, ...] | int = RED, size: tuple[int, int] = (40, 30), **options: object
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(color, int) else "RGB", size, color).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten red images of cats, five green ones of dogs."""
    for i in range(10):
        save_image(tmp_path / "pets" / "cat" / f"{i}.png", (220, 30, i))
    for i in range(5):
        save_image(tmp_path / "pets" / "dog" / f"{i}.png", (20, 200, i))
    return tmp_path / "pets"


def test_a_fifth_of_each_class_is_for_testing_and_always_the_same(pets):
    train, test, unreadable = load("folder:pets", pets.parent)
    assert (train.name, train.classes, train.shape) == ("pets", ("cat", "dog"), (3, 32, 32))
    assert torch.bincount(train.labels).tolist() == [8, 4]
    assert torch.bincount(test.labels).tolist() == [2, 1]
    assert unreadable == ()
    reloaded = load(f"folder:{pets}")
    assert (reloaded.train.fingerprint, reloaded.test.fingerprint) == (train.fingerprint, test.fingerprint)


def test_each_image_has_the_label_of_its_folder(pets):
    train, _, _ = load(f"folder:{pets}", image_size=8)
    assert train.images.shape == (12, 3, 8, 8)
    green = train.images[:, 1].float().mean((1, 2)) > 100
    assert torch.equal(green.long(), train.labels)


def test_train_and_test_folders_are_the_split(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name, color in (("cat", RED), ("dog", GREEN)):
            for i in range(count):
                save_image(tmp_path / split / name / f"{i}.png", color)
    train, test, _ = load(f"folder:{tmp_path}")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert tuple(test.images[-1, :, 0, 0].tolist()) == GREEN


def test_train_and_test_of_other_classes_are_refused(tmp_path):
    for path in ("train/cat", "train/dog", "test/cat", "test/cow"):
        save_image(tmp_path / path / "0.png")
    with pytest.raises(LabError, match=r"test has the classes cat, cow, but .*train has cat, dog"):
        load(f"folder:{tmp_path}")


def test_a_third_folder_makes_train_and_test_classes_like_any_other(tmp_path):
    for name in ("train", "test", "tram"):
        for i in range(2):
            save_image(tmp_path / name / f"{i}.png")
    assert load(f"folder:{tmp_path}").train.classes == ("test", "train", "tram")


@pytest.mark.parametrize(("folders", "count"), [([], "no subfolders"), (["cat"], "one subfolder")])
def test_fewer_than_two_classes_are_refused(tmp_path, folders, count):
    for name in folders:
        save_image(tmp_path / name / "0.png")
    with pytest.raises(LabError, match=f"has {count}: put the images of each class"):
        load(f"folder:{tmp_path}")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"cannot read .*nowhere"):
        load("folder:nowhere", tmp_path)


@pytest.mark.parametrize("size", [7, 513])
def test_a_size_out_of_bounds_is_refused_before_anything_is_read(tmp_path, size):
    with pytest.raises(LabError, match=f"image size {size} was requested: give one from 8 to 512"):
        load("folder:nowhere", tmp_path, image_size=size)


def test_unreadable_files_are_skipped_and_listed_with_the_reason(pets):
    content = save_image(pets / "cat" / "big.jpg", size=(300, 300)).read_bytes()
    (pets / "cat" / "big.jpg").write_bytes(content[: len(content) // 2])
    (pets / "dog" / "notes.txt").write_text("Rex was here")
    train, test, unreadable = load(f"folder:{pets}")
    assert len(train) + len(test) == 15
    assert len(unreadable) == 2
    assert unreadable[0].startswith(f"cat{os.sep}big.jpg: damaged (image file is truncated")
    assert unreadable[1].startswith(f"dog{os.sep}notes.txt: not an image")


@pytest.mark.parametrize("content", [None, b"not an image"])
def test_a_class_without_a_readable_image_is_refused(pets, content):
    (pets / "eel").mkdir()
    if content:
        (pets / "eel" / "0.png").write_bytes(content)
    with pytest.raises(LabError, match="eel has no readable image"):
        load(f"folder:{pets}")


def test_hidden_files_and_folders_are_skipped_and_inner_folders_are_not(pets):
    (pets / ".thumbnails").mkdir()
    (pets / "cat" / ".DS_Store").write_bytes(b"x")
    save_image(pets / "cat" / ".cache" / "0.png")
    save_image(pets / "cat" / "kittens" / "0.png")
    train, test, unreadable = load(f"folder:{pets}")
    assert train.classes == ("cat", "dog")
    assert len(train) + len(test) == 16
    assert unreadable == ()


def test_a_gray_dataset_has_one_channel_even_if_files_have_three(tmp_path):
    for name, level in (("dark", 10), ("light", 200)):
        save_image(tmp_path / name / "0.png", level)
        save_image(tmp_path / name / "1.png", (level, level, level))
        save_image(tmp_path / name / "2.jpg", level)
    train, test, _ = load(f"folder:{tmp_path}")
    assert train.shape == test.shape == (1, 32, 32)
    assert set(train.images[train.labels == 1].unique().tolist()) == {200}


def test_one_color_image_gives_all_of_them_three_channels(tmp_path):
    for i in range(3):
        save_image(tmp_path / "dark" / f"{i}.png", 10)
        save_image(tmp_path / "light" / f"{i}.png", 200)
    save_image(tmp_path / "light" / "red.png", RED)
    assert load(f"folder:{tmp_path}").train.shape == (3, 32, 32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_common_formats_are_read(tmp_path, suffix):
    for name, color in (("cat", RED), ("dog", GREEN)):
        for i in range(2):
            save_image(tmp_path / name / f"{i}.{suffix}", color)
    train, _, unreadable = load(f"folder:{tmp_path}")
    assert unreadable == ()
    assert train.images[0, :, 16, 16].tolist() == pytest.approx(RED, abs=3)


def test_sixteen_bits_keep_their_contrast(tmp_path):
    for name, level in (("dim", 257 * 20), ("bright", 257 * 220)):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.full((20, 20), level, np.uint16)).save(tmp_path / name / f"{i}.png")
    train, _, _ = load(f"folder:{tmp_path}")
    assert train.classes == ("bright", "dim")
    assert [train.images[train.labels == label].unique().tolist() for label in (0, 1)] == [[220], [20]]


def test_images_are_rotated_by_their_exif_orientation(tmp_path):
    upright = Image.new("RGB", (40, 40), RED)
    upright.paste(GREEN, (0, 0, 40, 20))  # green above red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name / f"{i}.png", exif=exif)
    train, _, _ = load(f"folder:{tmp_path}", image_size=8)
    assert tuple(train.images[0, :, 0, 7].tolist()) == GREEN
    assert tuple(train.images[0, :, 7, 0].tolist()) == RED


def test_an_image_to_predict_is_resized_like_the_dataset(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (57, 91, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    train, _, _ = load(f"folder:{tmp_path}")
    assert torch.equal(
        train.images[0], resize_and_center_crop(read_image_file(tmp_path / "a" / "0.png"), (32, 32), channels=3)
    )


def test_a_photo_beyond_the_limit_is_skipped_with_how_to_lift_it_for_a_training(pets, monkeypatch):
    save_image(pets / "cat" / "large.png", size=(50, 41))
    monkeypatch.setattr(image_io, "MAX_IMAGE_PIXELS", 2000)
    (line,) = load(f"folder:{pets}").unreadable
    assert line.startswith("cat/large.png: 50 x 41 is more than the limit of 2,000 pixels: resize the image, or lift")
    assert line.endswith("set CONVOLAB_LIMITS=data.image_io.MAX_IMAGE_PIXELS=NUMBER")
    monkeypatch.setattr(image_io, "MAX_IMAGE_PIXELS", 2050)
    assert load(f"folder:{pets}").unreadable == ()


def test_progress_counts_images_and_warning_filters_are_not_changed(pets):
    filters = list(warnings.filters)
    calls = []
    load(f"folder:{pets}", on_progress=lambda *progress: calls.append(progress))
    assert calls == [(i, 15) for i in range(1, 16)]
    assert warnings.filters == filters


def test_a_class_without_a_readable_image_says_why(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / name / "0.tiff")
    with pytest.raises(LabError, match=r"no readable image.*floating-point numbers of unknown range"):
        load(f"folder:{tmp_path}", image_size=8)


def test_images_that_use_the_lowest_of_16_bits_are_reported(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for number in range(5):
            values = np.full((8, 8), 1000 * label + 100 * number + 500, dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    assert any(
        "the brightest pixel of the images is" in note for note in load(f"folder:{tmp_path}", image_size=8).notes
    )
