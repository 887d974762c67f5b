"""Images that are there twice, exactly and nearly."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.data.catalog import load
from convolab.data.copies import describe_copies, near_copies


def photo(seed: int, side: int = 64) -> Image.Image:
    """A smooth image that no other seed gives."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Different images of cats and dogs, in train, val and test."""
    for number, (split, name) in enumerate((s, n) for s in ("train", "val", "test") for n in ("cat", "dog")):
        (tmp_path / split / name).mkdir(parents=True)
        for index in range(4):
            photo(10 * number + index).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def notes(folder: Path) -> tuple[str, ...]:
    return load(f"folder:{folder}").notes


@pytest.mark.slow
def test_different_images_give_no_note(pets):
    assert notes(pets) == ()


@pytest.mark.slow
def test_images_of_train_in_test_and_validation_are_counted_and_named(pets):
    for index in range(4):
        shutil.copy(pets / "train/cat" / f"{index}.png", pets / "test/cat" / f"copy{index}.png")
    photo(11).save(pets / "val/dog/again.bmp")  # the same pixels in another format
    assert notes(pets) == (
        "4 images of test are also in train (test/cat/copy0.png = train/cat/0.png, test/cat/copy1.png = train/cat/1.png, "
        "test/cat/copy2.png = train/cat/2.png and 1 more): the test is easier than it looks",
        "1 image of validation is also in train (val/dog/again.bmp = train/dog/1.png): "
        "the validation is easier than it looks",
    )


@pytest.mark.slow
def test_an_image_of_validation_in_test_gives_a_note(pets):
    shutil.copy(pets / "val/cat/0.png", pets / "test/cat/copy.png")
    assert [note.split(" (")[0] for note in notes(pets)] == ["1 image of test is also in validation"]


@pytest.mark.slow
def test_an_image_under_two_classes_gives_a_note(pets):
    shutil.copy(pets / "train/cat/0.png", pets / "train/dog/copy.png")
    assert notes(pets) == (
        "1 image is the same under two classes (train/dog/copy.png = train/cat/0.png): one label is wrong",
    )


@pytest.mark.slow
def test_copies_in_one_folder_are_found_on_both_sides_of_the_split_that_is_drawn(pets):
    for index in range(4):
        for copy in range(5):
            shutil.copy(pets / "train/cat" / f"{index}.png", pets / "train/cat" / f"copy{index}{copy}.png")
    found = [note.split(" (")[0] for note in notes(pets / "train")]
    assert found[0].endswith("images of test are also in train")
    assert found[1].endswith("images of train are there twice")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["saved as JPEG", "smaller", "a little brighter"])
def test_nearly_the_same_image_gives_a_note(pets, change):
    image = photo(0)
    if change == "smaller":
        image = image.resize((50, 50), Image.Resampling.BICUBIC)
    elif change == "a little brighter":
        image = image.point([min(level + 1, 255) for level in range(256)] * 3)
    image.save(pets / "test" / "dog" / ("near.jpg" if change == "saved as JPEG" else "near.png"))
    found = [note.split(" (")[0] for note in notes(pets)]
    assert found == ["1 image of test is nearly also in train", "1 image is nearly the same under two classes"]


def test_plain_images_are_not_nearly_the_same():
    images = torch.arange(100, 110).byte().view(10, 1, 1, 1).expand(10, 3, 32, 32)
    assert len(near_copies(images, torch.arange(10))) == 0


@pytest.mark.slow
def test_near_copies_are_those_that_comparing_all_pairs_gives():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(90, 130, (400, 1, 8, 8), generator=generator).byte()
    images = torch.cat([images, images[:200] + torch.randint(0, 2, (200, 1, 8, 8), generator=generator).byte()])
    groups = torch.randint(0, 3, (600,), generator=generator)
    flat = images.float().flatten(1)
    distances = (flat[:, None] - flat[None]).pow(2).mean(2).sqrt()
    expected = ((distances <= 1) & (groups[:, None] != groups[None])).triu(1).nonzero()
    found = near_copies(images, groups)
    assert 0 < len(expected) < 200
    assert sorted(found.tolist()) == expected.tolist()


@pytest.mark.slow
def test_a_thousand_copies_of_one_image_are_counted():
    images = torch.zeros(1000, 1, 8, 8, dtype=torch.uint8)
    splits = ["train"] * 600 + ["test"] * 400
    found = describe_copies(images, torch.arange(1000) % 500, splits, [str(index) for index in range(1000)])
    assert found[0].startswith("400 images of test are also in train")


@pytest.mark.slow
def test_all_of_cifar10_is_compared_in_a_second(cifar10_dir):
    splits = load("cifar10", cifar10_dir, download=False)
    assert splits.notes == ()  # of a published set no copies are looked for
    images = torch.cat([splits.train.images, splits.test.images])
    labels = torch.cat([splits.train.labels, splits.test.labels])
    parts = ["train"] * 50_000 + ["test"] * 10_000
    started = time.process_time()
    found = describe_copies(images, labels, parts, [str(index) for index in range(60_000)])
    assert time.process_time() - started < 5  # about 0.8 s; the slack is for slower machines
    assert found == []


LOOKED_AT = """
import sys
from pathlib import Path
import torch
from convolab.core.environment import tune_malloc
tune_malloc()  # as the command line does
from convolab.data.copies import thumbnails
from convolab.data.dataset import FileRows
from convolab.data.memmap import map_rows

torch.set_num_threads(1)
count, path = 3000, Path(sys.argv[1])
with path.open("wb") as file:
    file.truncate(count * 3 * 224 * 224)  # holes: no byte of it is on the disk
images = map_rows(FileRows(path, 0), (count, 3, 224, 224))

def own_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

thumbnails(images[:500])
before = own_megabytes()
thumbnails(images)
print(own_megabytes() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the system does not tell the memory of a process's own"
)
@pytest.mark.slow
def test_memory_does_not_grow_with_the_images_that_are_looked_at(tmp_path):
    command = [sys.executable, "-c", LOOKED_AT, str(tmp_path / "rows.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 150  # megabytes; it was 556


def test_a_class_without_an_image_in_a_split_gives_a_note(tmp_path):
    for name, count in (("cat", 10), ("dog", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            photo(index + len(name) * count).save(tmp_path / name / f"{index}.png")
    assert notes(tmp_path) == ("test has no image of 'dog': its accuracy says nothing of that",)
