"""The sets of torchvision, in tiny: each split, label, class name and pixel is what torchvision's own class gives."""

import bz2
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from scipy.io import savemat
from support.small_sets import cifar10_files, cifar_batch, fashion_files, write_all

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.image_io import resize_and_center_crop, to_uint8_image
from convolab.data.image_torchvision import KNOWN
from convolab.data.readers import torchvision_files

DRAW = np.random.default_rng(0)


def draw_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAW.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)


def draw_folders(folder: Path, classes: tuple[str, ...], pattern: str, count: int = 5) -> None:
    for name in classes:
        for index in range(1, count + 1):
            draw_image(folder / name / pattern.format(index))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_caltech101(root: Path) -> None:
    classes = ("airplanes", "ant", "BACKGROUND_Google")
    draw_folders(root / "caltech101/101_ObjectCategories", classes, "image_{:04}.jpg")


def make_caltech256(root: Path) -> None:
    for number, name in ((1, "001.ak47"), (2, "002.flag")):
        draw_folders(root / "caltech256/256_ObjectCategories", (name,), f"{number:03}_{{:04}}.jpg")


def make_country211(root: Path) -> None:
    for split in ("train", "valid", "test"):
        draw_folders(root / "country211" / split, ("AD", "AE"), "{}.jpg", 2)


def make_dtd(root: Path) -> None:
    folder = root / "dtd/dtd"
    draw_folders(folder / "images", ("banded", "dotted"), "{}.jpg")
    for split, indices in {"train": (1, 3), "val": (2,), "test": (4, 5)}.items():
        lines = [f"{name}/{index}.jpg" for name in ("dotted", "banded") for index in indices]
        write_text(folder / f"labels/{split}1.txt", "\n".join(lines) + "\n")


def make_eurosat(root: Path) -> None:
    draw_folders(root / "eurosat/2750", ("Forest", "River"), "{}.jpg")


def make_fgvc_aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b/data"
    write_text(folder / "variants.txt", "Spitfire\nBoeing 737 200\n")
    draw_folders(folder, ("images",), "{}.jpg", 6)
    for split, (a, b) in {"train": (1, 2), "val": (3, 4), "test": (5, 6)}.items():
        write_text(folder / f"images_variant_{split}.txt", f"{a} Boeing 737 200\n{b} Spitfire\n")


def make_flowers102(root: Path) -> None:
    folder = root / "flowers-102"
    draw_folders(folder, ("jpg",), "image_{:05}.jpg", 206)
    savemat(folder / "imagelabels.mat", {"labels": np.arange(206)[None] % 102 + 1})
    ids = {"trnid": np.arange(1, 103), "valid": np.arange(103, 204), "tstid": np.arange(204, 207)}
    savemat(folder / "setid.mat", {name: values[None] for name, values in ids.items()})


def make_food101(root: Path) -> None:
    folder = root / "food-101"
    draw_folders(folder / "images", ("waffles", "apple_pie"), "{}.jpg", 3)
    for split, indices in {"train": (1, 2), "test": (3,)}.items():
        names = {name: [f"{name}/{index}" for index in indices] for name in ("waffles", "apple_pie")}
        write_text(folder / f"meta/{split}.json", json.dumps(names))


def make_gtsrb(root: Path) -> None:
    draw_folders(root / "gtsrb/GTSRB/Training", ("00000", "00001"), "{}.ppm", 2)
    write_text(root / "gtsrb/GTSRB/Training/00000/GT-00000.csv", "no image")
    draw_folders(root / "gtsrb/GTSRB/Final_Test", ("Images",), "{}.ppm", 2)
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    write_text(root / "gtsrb/GT-final_test.csv", f"{header}\n1.ppm;1;1;1;1;1;1;1\n2.ppm;1;1;1;1;1;1;0\n")


def make_imagenette(root: Path) -> None:
    for split in ("train", "val"):
        draw_folders(root / "imagenette2" / split, ("n01440764", "n02102040"), "{}.jpeg", 2)


def make_oxford_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    lines = {"trainval": [], "test": []}
    for label, name in ((1, "Abyssinian"), (2, "american_bulldog")):
        for index in range(1, 5):
            draw_image(folder / f"images/{name}_{index}.jpg")
            lines["trainval" if index < 3 else "test"].append(f"{name}_{index} {label} 1 1")
    for split, some in lines.items():
        write_text(folder / f"annotations/{split}.txt", "\n".join(some) + "\n")


def make_rendered_sst2(root: Path) -> None:
    for split in ("train", "valid", "test"):
        draw_folders(root / "rendered-sst2" / split, ("negative", "positive"), "{}.png", 2)


def make_cifar10(root: Path) -> None:
    names = pickle.dumps({"label_names": [f"class {index}" for index in range(10)]}, protocol=2)
    write_all(root / "cifar-10-batches-py", cifar10_files() | {"batches.meta": names})


def make_cifar100(root: Path) -> None:
    names = {"fine_label_names": [f"class {index}" for index in range(100)]}
    parts = {part: pickle.dumps(cifar_batch(200, 100, "fine_labels"), protocol=2) for part in ("train", "test")}
    write_all(root / "cifar-100-python", parts | {"meta": pickle.dumps(names, protocol=2)})


def make_mnist_like(name: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        import gzip

        files = fashion_files()
        raw = {file.removesuffix(".gz"): gzip.decompress(content) for file, content in files.items()}
        write_all(root / name / "raw", raw)

    return make


def make_stl10(root: Path) -> None:
    files = {
        "class_names.txt": b"".join(b"class %d\n" % index for index in range(10)),
        "fold_indices.txt": b"",
        "unlabeled_X.bin": b"",
    }
    for split in ("train", "test"):
        files[f"{split}_X.bin"] = DRAW.integers(0, 256, 20 * 3 * 96 * 96, dtype=np.uint8).tobytes()
        files[f"{split}_y.bin"] = bytes(index % 10 + 1 for index in range(20))
    write_all(root / "stl10_binary", files)


def make_svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        pixels = DRAW.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        savemat(root / f"{split}_32x32.mat", {"X": pixels, "y": (np.arange(20, dtype=np.uint8) % 10 + 1)[:, None]})


def make_usps(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in ("usps.bz2", "usps.t.bz2"):
        rows = [
            f"{index % 10 + 1} " + " ".join(f"{place}:{value:.4f}" for place, value in enumerate(values, 1))
            for index, values in enumerate(DRAW.uniform(-1, 1, (20, 256)))
        ]
        (root / name).write_bytes(bz2.compress("\n".join(rows).encode()))


THREE = {"train": {"split": "train"}, "validation": {"split": "val"}, "test": {"split": "test"}}
TWO = {"train": {"split": "train"}, "test": {"split": "test"}}
FLAG = {"train": {"train": True}, "test": {"train": False}}
SETS = {  # what makes it; the arguments of each split
    "CIFAR10": (make_cifar10, FLAG),
    "CIFAR100": (make_cifar100, FLAG),
    "Caltech101": (make_caltech101, {"": {}}),
    "Caltech256": (make_caltech256, {"": {}}),
    "Country211": (make_country211, {**THREE, "validation": {"split": "valid"}}),
    "DTD": (make_dtd, THREE),
    "EuroSAT": (make_eurosat, {"": {}}),
    "FGVCAircraft": (make_fgvc_aircraft, THREE),
    "FashionMNIST": (make_mnist_like("FashionMNIST"), FLAG),
    "Flowers102": (make_flowers102, THREE),
    "Food101": (make_food101, TWO),
    "GTSRB": (make_gtsrb, TWO),
    "Imagenette": (make_imagenette, {"train": {"split": "train"}, "validation": {"split": "val"}}),
    "KMNIST": (make_mnist_like("KMNIST"), FLAG),
    "MNIST": (make_mnist_like("MNIST"), FLAG),
    "OxfordIIITPet": (make_oxford_pets, {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    "RenderedSST2": (make_rendered_sst2, THREE),
    "STL10": (make_stl10, TWO),
    "SVHN": (make_svhn, TWO),
    "USPS": (make_usps, FLAG),
}


def accept_checksums(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Take the tiny files for the published ones, here and in torchvision."""
    for name in torchvision_files.CHECKSUMS:
        for path in root.rglob(name):
            monkeypatch.setitem(
                torchvision_files.CHECKSUMS, name, torchvision_files.hashlib.md5(path.read_bytes()).hexdigest()
            )
    for module in ("cifar", "flowers102", "stl10", "svhn"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).exists()
        )


def test_every_set_that_is_read_is_compared_with_torchvision() -> None:
    assert sorted(SETS) == KNOWN


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETS))
def test_a_set_is_what_torchvision_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, arguments = SETS[name]
    make(tmp_path)
    accept_checksums(monkeypatch, tmp_path)
    is_file = name in torchvision_files.FILE_SETS
    splits = load(f"torchvision:{name}@{tmp_path}", image_size=8 if is_file else 32)
    assert splits.unreadable == ()
    theirs = {
        split: getattr(torchvision.datasets, name)(str(tmp_path), **options) for split, options in arguments.items()
    }
    expected = {}  # images with their labels, in any order
    for split, dataset in theirs.items():
        channels = splits.train.shape[0]
        expected[split] = []
        for image, label in dataset:
            pixels = resize_and_center_crop(image, (8, 8), 3) if is_file else to_uint8_image(image)
            expected[split].append((int(label), pixels[:channels].numpy().tobytes()))
        expected[split].sort()
    ours = {
        split: sorted(
            (int(label), image.numpy().tobytes())
            for image, label in zip(*dataset.gather(torch.arange(len(dataset))), strict=True)
        )
        for split, dataset in splits.by_name.items()
    }
    if "" in arguments:
        assert set(ours) == {"train", "test"}
        assert sorted(ours["train"] + ours["test"]) == expected[""]
    else:
        assert ours == expected
    names = getattr(theirs["train" if "" not in arguments else ""], "classes", None) or getattr(
        theirs.get(""), "categories", None
    )
    if name == "GTSRB":
        names = ["00000", "00001"]
    elif name == "Imagenette":
        names = [alternatives[0] for alternatives in names]
    elif name in ("SVHN", "USPS"):
        names = list("0123456789")
    assert list(splits.train.classes) == list(names)
    assert splits.train.names is not None


def test_a_set_that_is_missing_is_one_line_that_tells_where_it_was_looked_for_and_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError) as raised:
        load("torchvision:CIFAR10")
    assert str(raised.value) == (
        "CIFAR10 is not in cifar-10-batches-py/batches.meta or data/cifar-10-batches-py/batches.meta: give its root as "
        "torchvision:CIFAR10@PATH, or get it in Python with torchvision.datasets.CIFAR10('.', download=True)"
    )
    with pytest.raises(LabError, match=r"Caltech101 is not in there/caltech101: give its root"):
        load("torchvision:Caltech101@there")
    assert list(tmp_path.iterdir()) == []  # torchvision's own class would make a folder


@pytest.mark.slow
def test_a_set_in_the_folder_data_of_the_tutorials_is_found(tmp_path, monkeypatch):
    make_eurosat(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert (
        load("torchvision:EuroSAT", image_size=8).fingerprints
        == load("torchvision:EuroSAT@data", image_size=8).fingerprints
    )
    assert load("torchvision:EuroSAT", tmp_path / "data", image_size=8).train.name == "EuroSAT"


@pytest.mark.parametrize("given", ["StanfordCars", "cifar10", "os.path", "", "ImageFolder@x"])
def test_another_name_is_refused_with_the_list(given: str) -> None:
    with pytest.raises(LabError, match=r"is not read: known: CIFAR10, CIFAR100, .*, USPS$|has no path"):
        load(f"torchvision:{given}")


def test_no_path_after_the_at_sign_is_refused() -> None:
    with pytest.raises(LabError, match=r"has no path after the @: write torchvision:DTD@PATH"):
        load("torchvision:DTD@")


@pytest.mark.parametrize(
    ("make", "path", "content"),
    [
        (make_cifar10, "cifar-10-batches-py/test_batch", b"cos\nsystem\n(S'touch ran'\ntR."),
        (make_svhn, "train_32x32.mat", b"another file"),
        (make_usps, "usps.bz2", bz2.compress(b"0" * 1_000_000)),
        (make_stl10, "stl10_binary/train_X.bin", b"123"),
        (make_stl10, "stl10_binary/train_y.bin", bytes([11] * 20)),
        (make_mnist_like("MNIST"), "MNIST/raw/train-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x01\x01"),
        (make_food101, "food-101/meta/train.json", b"[" * 100_000),
        (make_food101, "food-101/meta/train.json", b'{"waffles": 3}'),
        (make_food101, "food-101/meta/test.json", b'{"soup": ["a"]}'),
        (make_dtd, "dtd/dtd/labels/test1.txt", b"unknown/1.jpg"),
        (make_dtd, "dtd/dtd/labels/test1.txt", b"banded/\0.jpg"),
        (make_gtsrb, "gtsrb/GT-final_test.csv", b"Filename;ClassId\n1.ppm;70"),
        (make_gtsrb, "gtsrb/GT-final_test.csv", b"\xff"),
        (make_oxford_pets, "oxford-iiit-pet/annotations/trainval.txt", b"Abyssinian_1 7 1 1\n"),
        (make_fgvc_aircraft, "fgvc-aircraft-2013b/data/images_variant_val.txt", b"1\n"),
        (make_flowers102, "flowers-102/setid.mat", b"another file"),
    ],
)
def test_a_damaged_or_strangers_file_is_one_line_and_nothing_in_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], path: str, content: bytes
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    if not path.endswith((".mat", ".bz2")):
        accept_checksums(monkeypatch, tmp_path)
    (tmp_path / path).write_bytes(content)
    (name,) = (name for name, (maker, _) in SETS.items() if maker is make or (path.startswith(f"{name}/")))
    with pytest.raises(LabError) as raised:
        load(f"torchvision:{name}@{tmp_path}")
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_another_size_for_a_set_of_arrays_is_refused_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SETS["CIFAR10"][0](tmp_path)
    accept_checksums(monkeypatch, tmp_path)
    with pytest.raises(LabError, match=r"CIFAR10: an image size of 8 was requested, but its images keep theirs"):
        load(f"torchvision:CIFAR10@{tmp_path}", image_size=8)
