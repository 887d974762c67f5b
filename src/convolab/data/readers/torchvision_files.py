"""Datasets of image files in the folders that torchvision makes: which files there are, in which split and class.

Their lists are read here and not by torchvision's classes, which follow links in circles and bound nothing.
`tests/data/readers/test_torchvision_sets.py` compares each with torchvision's own.
"""

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from convolab.core.errors import require
from convolab.core.files import parse_json, read_text
from convolab.data.folder_layout import MAX_FILES, find_files, shown_path, subfolder_names

MAX_LIST_BYTES = 20_000_000  # of a file that lists images; Food101's longest has 2 million
CHECKSUMS = {  # MD5 of files in formats that can hide gigabytes in a few bytes: no others are opened
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197",
    "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118",
}


@dataclass
class FileList:
    """The images of a dataset."""

    classes: list[str]
    splits: list[str] = field(default_factory=list)  # of each image
    labels: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def add(self, split: str, label: int, path: Path) -> None:
        require(0 <= label < len(self.classes), f"{shown_path(path)} has the label {label} of {len(self.classes)}")
        require(len(self.paths) < MAX_FILES, f"there are more than {MAX_FILES:,} images")
        self.splits.append(split)
        self.labels.append(label)
        self.paths.append(path)


def read_list(path: Path) -> str:
    """A list of images. Raises LabError if it is missing, no file, too long or not text."""
    text = read_text(path, MAX_LIST_BYTES)
    require("\0" not in text, f"{shown_path(path)} has a NUL character, which no file name can have")
    return text


def read_verified(path: Path, max_bytes: int | None = None) -> io.BytesIO:
    """The bytes of a published file, by default of up to MAX_LIST_BYTES. Raises LabError if they are others."""
    require(path.is_file(), f"{shown_path(path)} is missing")
    size = path.stat().st_size
    content = path.read_bytes() if size <= (MAX_LIST_BYTES if max_bytes is None else max_bytes) else b""
    checksum = hashlib.md5(content, usedforsecurity=False).hexdigest()
    require(checksum == CHECKSUMS[path.name], f"{shown_path(path)} is not the published file: get it again")
    return io.BytesIO(content)


def list_class_folders(splits: dict[str, Path], suffixes: tuple[str, ...], leave_out: str = "") -> FileList:
    """A folder for each class, in each split."""
    names = [name for name in subfolder_names(next(iter(splits.values()))) if name != leave_out]
    listed = FileList(names)
    for split, folder in splits.items():
        for label, name in enumerate(names):
            for path in find_files(folder / name)[0] if (folder / name).is_dir() else ():
                if path.suffix.lower() in suffixes:
                    listed.add(split, label, path)
    return listed


def list_caltech101(folder: Path) -> FileList:
    return list_class_folders({"": folder / "101_ObjectCategories"}, (".jpg",), leave_out="BACKGROUND_Google")


def list_caltech256(folder: Path) -> FileList:
    return list_class_folders({"": folder / "256_ObjectCategories"}, (".jpg",))


def list_country211(folder: Path) -> FileList:
    splits = {"train": folder / "train", "validation": folder / "valid", "test": folder / "test"}
    return list_class_folders(splits, (".jpg", ".jpeg", ".png"))


def list_dtd(folder: Path) -> FileList:
    """The first of its ten partitions."""
    files = {"train": "train1.txt", "validation": "val1.txt", "test": "test1.txt"}
    lines = {split: read_list(folder / "dtd/labels" / name).split() for split, name in files.items()}
    classes = sorted({line.split("/")[0] for line in lines["train"]})
    listed = FileList(classes)
    for split, names in lines.items():
        for name in names:
            listed.add(split, classes.index(name.split("/")[0]), folder / "dtd/images" / name)
    return listed


def list_eurosat(folder: Path) -> FileList:
    return list_class_folders({"": folder / "2750"}, (".jpg", ".jpeg", ".png", ".tif"))


def list_fgvc_aircraft(folder: Path) -> FileList:
    """Its hundred variants."""
    classes = read_list(folder / "data/variants.txt").splitlines()
    label_of = {name.strip(): label for label, name in enumerate(classes)}
    listed = FileList([*label_of])
    for split, name in {"train": "train", "validation": "val", "test": "test"}.items():
        for line in read_list(folder / f"data/images_variant_{name}.txt").splitlines():
            number, variant = line.strip().split(" ", 1)
            listed.add(split, label_of[variant], folder / f"data/images/{number}.jpg")
    return listed


def list_flowers102(folder: Path) -> FileList:
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102

    ids = loadmat(read_verified(folder / "setid.mat"), squeeze_me=True)
    labels = loadmat(read_verified(folder / "imagelabels.mat"), squeeze_me=True)["labels"]
    listed = FileList([*Flowers102.classes])
    for split, name in {"train": "trnid", "validation": "valid", "test": "tstid"}.items():
        for number in ids[name].tolist():
            listed.add(split, int(labels[number - 1]) - 1, folder / f"jpg/image_{number:05d}.jpg")
    return listed


def list_food101(folder: Path) -> FileList:
    names = {split: parse_json(read_list(path := folder / f"meta/{split}.json"), path) for split in ("train", "test")}
    classes = sorted(names["train"])
    listed = FileList(classes)
    for split, by_class in names.items():
        for label, images in by_class.items():
            for image in images:
                listed.add(split, classes.index(label), folder / f"images/{image}.jpg")
    return listed


def list_gtsrb(folder: Path) -> FileList:
    listed = list_class_folders({"train": folder / "GTSRB/Training"}, (".ppm",))
    rows = csv.DictReader(io.StringIO(read_list(folder / "GT-final_test.csv")), delimiter=";", skipinitialspace=True)
    for row in rows:
        listed.add("test", int(row["ClassId"]), folder / "GTSRB/Final_Test/Images" / row["Filename"])
    return listed


def list_imagenette(folder: Path) -> FileList:
    from torchvision.datasets import Imagenette

    listed = list_class_folders({"train": folder / "train", "validation": folder / "val"}, (".jpeg",))
    listed.classes = [Imagenette._WNID_TO_CLASS[name][0] for name in listed.classes]
    return listed


def list_oxford_pets(folder: Path) -> FileList:
    rows = {
        split: [line.split() for line in read_list(folder / f"annotations/{name}.txt").splitlines()]
        for split, name in {"train": "trainval", "test": "test"}.items()
    }
    names = {int(row[1]): row[0].rpartition("_")[0] for row in rows["train"]}
    listed = FileList([" ".join(map(str.title, names[label].split("_"))) for label in sorted(names)])
    require(
        sorted(names) == [*range(1, len(names) + 1)],
        f"{shown_path(folder / 'annotations/trainval.txt')} skips labels: get it again",
    )
    for split, images in rows.items():
        for row in images:
            listed.add(split, int(row[1]) - 1, folder / f"images/{row[0]}.jpg")
    return listed


def list_rendered_sst2(folder: Path) -> FileList:
    splits = {"train": folder / "train", "validation": folder / "valid", "test": folder / "test"}
    return list_class_folders(splits, (".png",))


FILE_SETS: dict[str, tuple[tuple[str, ...], Callable[[Path], FileList]]] = {  # the folders below the root, the reader
    "Caltech101": (("caltech101",), list_caltech101),
    "Caltech256": (("caltech256",), list_caltech256),
    "Country211": (("country211",), list_country211),
    "DTD": (("dtd",), list_dtd),
    "EuroSAT": (("eurosat",), list_eurosat),
    "FGVCAircraft": (("fgvc-aircraft-2013b",), list_fgvc_aircraft),
    "Flowers102": (("flowers-102",), list_flowers102),
    "Food101": (("food-101",), list_food101),
    "GTSRB": (("gtsrb",), list_gtsrb),
    "Imagenette": (("imagenette2", "imagenette2-320", "imagenette2-160"), list_imagenette),
    "OxfordIIITPet": (("oxford-iiit-pet",), list_oxford_pets),
    "RenderedSST2": (("rendered-sst2",), list_rendered_sst2),
}
