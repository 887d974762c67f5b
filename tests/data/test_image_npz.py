"""The user's own datasets: .npz files of arrays."""

import io
import resource
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from convolab.core.errors import LabError
from convolab.data import image_source
from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 10, 12, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3


def save(folder: Path, *, compressed: bool = True, **arrays: object) -> Path:
    path = folder / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def read(path: Path) -> DatasetSplits:
    return load(f"npz:{path}")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_the_names_of_keras_are_taken(tmp_path, compressed, dtype):
    labels = LABELS.astype(dtype)
    splits = read(
        save(
            tmp_path, compressed=compressed, x_train=IMAGES[:12], y_train=labels[:12], x_test=IMAGES[12:],
            y_test=labels[12:],
        )
    )  # fmt: skip
    assert torch.equal(splits.train.images, torch.from_numpy(IMAGES[:12]).permute(0, 3, 1, 2))
    assert torch.equal(splits.test.images, torch.from_numpy(IMAGES[12:]).permute(0, 3, 1, 2))
    assert splits.train.labels.tolist() == LABELS[:12].tolist()
    assert (splits.train.classes, splits.train.name) == (("0", "1", "2"), "set")


def test_the_names_of_medmnist_are_taken_with_labels_in_a_column(tmp_path):
    arrays = {
        f"{split}_{kind}": values[part]
        for split, part in (("train", slice(0, 12)), ("val", slice(12, 16)), ("test", slice(16, 20)))
        for kind, values in (("images", IMAGES[..., 0]), ("labels", LABELS[:, None]))
    }
    splits = read(save(tmp_path, **arrays))
    assert {name: dataset.images.shape for name, dataset in splits.by_name.items()} == {
        "train": (12, 1, 10, 12), "validation": (4, 1, 10, 12), "test": (4, 1, 10, 12),
    }  # fmt: skip


def test_images_and_labels_alone_are_split_and_classes_have_their_names(tmp_path):
    splits = read(save(tmp_path, images=IMAGES.transpose(0, 3, 1, 2), labels=LABELS, classes=np.array(["a", "b", "ö"])))
    assert (splits.train.classes, splits.train.shape) == (("a", "b", "ö"), (3, 10, 12))
    assert len(splits.train) + len(splits.test) == 20
    images = {bytes(row) for row in torch.cat([splits.train.images, splits.test.images]).flatten(1).numpy()}
    assert images == {row.tobytes() for row in IMAGES.transpose(0, 3, 1, 2).reshape(20, -1)}


def test_gray_images_of_three_channels_have_one(tmp_path):
    gray = np.repeat(IMAGES[..., :1], 3, axis=3)
    assert read(save(tmp_path, images=gray, labels=LABELS)).train.shape == (1, 10, 12)


def test_a_mapped_set_is_that_in_memory(tmp_path, monkeypatch):
    path = save(tmp_path, images=IMAGES, labels=LABELS)
    expected = read(path)
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(image_source, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr(image_source, "SETTLING_SECONDS", 0.0)
    assert read(path).fingerprints == expected.fingerprints
    assert read(path).train.file_rows is not None


class Fires:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("/nonexistent/fired", "w"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": IMAGES}, "holds a: name the arrays x_train, y_train"),
        ({"x_test": IMAGES, "y_test": LABELS}, "name the arrays"),
        ({"images": IMAGES}, "name the arrays"),
        ({"images": IMAGES / 255.0, "labels": LABELS}, r"images is float64, and images are uint8: save \(255 \* images\)"),
        ({"images": IMAGES.astype(int), "labels": LABELS}, r"is int64, and images are uint8: save images.astype"),
        ({"images": IMAGES[..., [0, 1, 2, 0]], "labels": LABELS}, r"\[20, 10, 12, 4\]: give \[N, H, W\]"),
        ({"images": IMAGES[0], "labels": LABELS}, "the images of images have 12 x 3 pixels"),
        ({"images": np.asfortranarray(IMAGES), "labels": LABELS}, "in Fortran's order"),
        ({"images": np.zeros((20, 8, 513), np.uint8), "labels": LABELS}, "have 8 x 513 pixels: give sides from 8 to 512"),
        ({"images": IMAGES, "labels": LABELS[:19]}, r"labels is int64 \[19\]: give whole numbers, \[20\]"),
        ({"images": IMAGES, "labels": np.eye(20)}, r"labels is float64 \[20, 20\]"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels runs from -1 to 1: number the classes from 0"),
        ({"images": IMAGES, "labels": LABELS * 10**15}, "labels runs from 0 to 2000000000000000"),
        ({"images": IMAGES, "labels": LABELS + 1}, "the labels go from 1 to 3, and classes are counted from 0: subtract 1"),
        ({"images": IMAGES, "labels": LABELS + 2}, "the class '0' has no readable training image"),
        ({"images": IMAGES, "labels": LABELS * 0}, "has one class"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, "classes has 1 names, but the labels go up to 2"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.arange(3)}, r"classes is int64 \[3\]: give an array of strings"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a", "a", "b"])}, "more than one class is called a"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "has no classes"),
        ({"images": np.array([Fires()] * 20), "labels": LABELS}, "images holds Python objects, which are not read"),
        ({"images": IMAGES, "labels": np.array([Fires()] * 20)}, "labels holds Python objects"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :9], "y_test": LABELS}, "another size"),
        ({"x_train": IMAGES, "y_train": LABELS, "images": IMAGES, "labels": LABELS}, "beside the arrays of splits"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_refused_in_a_line_that_says_how_to_save_them(tmp_path, arrays, message):
    with pytest.raises(LabError, match=message):
        read(save(tmp_path, **arrays))


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        header("(1000000000000, 10, 12)"),
        header("(" + "9" * 4000 + ", 10, 12)"),
        header("(-20, 10, 12)") + b"x" * 2400,
        header("(20.0, 10, 12)") + b"x" * 2400,
        header("(True, 10, 12)") + b"x" * 2400,
        header("__import__('os').mkdir('fired')"),
        header("(20, 10, 12)", "'|O'") + b"x" * 2400,
        header("(20, 10, 12)", "[('a', '|u1')]") + b"x" * 2400,
        header("(" * 5000 + "20" + ")" * 5000),
        npy(IMAGES)[:-1],
        npy(IMAGES) + b"more",
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
        archive.writestr("labels.npy", npy(LABELS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LabError, match=r"set\.npz"):
        read(Path("set.npz"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert not Path("fired").exists()


@pytest.mark.slow
def test_a_deflate_bomb_takes_no_memory_and_is_refused_for_its_size(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("CONVOLAB_MAX_BYTES", str(10**9))
    count = 400_000_000 // 4096
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.npy", npy(np.arange(count) % 2))
        with archive.open("images.npy", "w", force_zip64=True) as file:
            file.write(header(f"({count}, 64, 64)"))
            for _ in range(count):
                file.write(bytes(4096))
    assert (tmp_path / "set.npz").stat().st_size < 10**6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LabError, match=r"97,656 images of 64 x 64 take 1\.2 GB, more than 1\.0 GB"):
        read(tmp_path / "set.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_cut_and_changed_byte_is_a_result_or_one_line(tmp_path, way):
    with zipfile.ZipFile(save(tmp_path, images=IMAGES[:6], labels=LABELS[:6])) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(tmp_path / "packed.npz", "w", way) as packed:
        for name, member in members.items():
            packed.writestr(name, member)
    content = (tmp_path / "packed.npz").read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content[: draw.integers(len(content))] if draw.random() < 0.3 else content)
        for _ in range(3):
            if damaged:
                damaged[draw.integers(len(damaged))] = draw.integers(256)
        (tmp_path / "set.npz").write_bytes(damaged)
        with suppress(LabError):  # anything else is a bug
            read(tmp_path / "set.npz")


@pytest.mark.parametrize("name", ["digits", "npz:arrays.npz"])
def test_another_size_for_images_that_keep_theirs_is_refused_and_not_passed_over(name: str, tmp_path: Path):
    np.savez(tmp_path / "arrays.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(LabError, match=r"size of 64 was requested, but .* keep theirs: leave data\.image_size out"):
        load(name, tmp_path, image_size=64)
