"""Where picture sets come from: a table of the published ones, and any folder that holds a folder of pictures per class.

This room is read by commands that only list the sets, so torch and whatever decodes pictures is imported where it is needed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convolab.core.errors import LabError, nearest, need
from convolab.core.files import writing_to
from convolab.data.download import Progress, Unreachable, download, matches, unpack

if TYPE_CHECKING:
    from convolab.data.dataset import ImageSet


class Pictures(NamedTuple):
    """A set as it is used: what to train on and what to test on."""

    train: "ImageSet"
    test: "ImageSet"
    unreadable: tuple[str, ...] = ()  # the files of a folder that could not be read, each with the reason


@dataclass(frozen=True)
class Download:
    """One published file."""

    address: str
    checksum: str  # "sha256:..." or "md5:..."

    @property
    def file(self) -> str:
        """The file's own name, the end of its address."""
        return self.address.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """A published picture set, and all that can be said of it without opening it."""

    name: str
    summary: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    train: int  # pictures to train on
    test: int  # and to test on
    megabytes: float = 0.0  # to download; 0 if it comes with an installed library
    augment: tuple[str, ...] = ()  # the usual augmentation
    folder: str = ""  # the folder it is kept in
    files: tuple[str, ...] = ()  # what a whole folder holds
    downloads: tuple[Download, ...] = ()  # the files themselves, or one archive that holds the folder

    @property
    def archived(self) -> bool:
        """Whether the download is an archive to unpack."""
        return len(self.downloads) == 1

    def missing(self, folder: Path) -> list[str]:
        """The names of the files that a folder lacks."""
        return [name for name in self.files if not (folder / name).is_file()]


TORONTO = "https://www.cs.toronto.edu/~kriz/"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST = (
    Download(ZALANDO + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    Download(ZALANDO + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    Download(ZALANDO + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    Download(ZALANDO + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
)

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "digits",
            "handwritten digits, 8 x 8 grey; come with scikit-learn",
            (1, 8, 8),
            classes=10,
            train=1_438,
            test=359,
        ),
        Source(
            "fashion_mnist",
            "articles of clothing, 28 x 28 grey (Xiao, Rasul & Vollgraf 2017)",
            (1, 28, 28),
            classes=10,
            train=60_000,
            test=10_000,
            megabytes=30.9,
            augment=("crop:2", "flip"),
            folder="fashion-mnist",
            files=tuple(download.file for download in FASHION_MNIST),
            downloads=FASHION_MNIST,
        ),
        Source(
            "cifar10",
            "animals and vehicles, 32 x 32 colour (Krizhevsky 2009)",
            (3, 32, 32),
            classes=10,
            train=50_000,
            test=10_000,
            megabytes=170.5,
            augment=("crop:4", "flip"),
            folder="cifar-10-batches-py",
            files=(
                "data_batch_1",
                "data_batch_2",
                "data_batch_3",
                "data_batch_4",
                "data_batch_5",
                "test_batch",
                "batches.meta",
            ),
            downloads=(
                Download(
                    TORONTO + "cifar-10-python.tar.gz",
                    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                ),
            ),
        ),
        Source(
            "cifar100",
            "a hundred kinds of things, 32 x 32 colour, fine labels (Krizhevsky 2009)",
            (3, 32, 32),
            classes=100,
            train=50_000,
            test=10_000,
            megabytes=169.0,
            augment=("crop:4", "flip"),
            folder="cifar-100-python",
            files=("train", "test", "meta"),
            downloads=(
                Download(
                    TORONTO + "cifar-100-python.tar.gz",
                    "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                ),
            ),
        ),
    )
}


def usual_augmentation(name: str) -> tuple[str, ...]:
    """The augmentation a set is usually trained with. Raises LabError for an unknown name.

    >>> usual_augmentation("cifar10"), usual_augmentation("folder:pets"), usual_augmentation("digits")
    (('crop:4', 'flip'), ('crop:4', 'flip'), ())
    """
    return ("crop:4", "flip") if name.startswith("folder:") else _known(name).augment


def load(
    name: str, root: Path | None = None, *, size: int = 32, fetch: bool = True, on_progress: Progress | None = None
) -> Pictures:
    """Read a picture set into memory: a name of SOURCES, or `folder:PATH` with a folder of pictures per class.

    `root` holds the downloaded sets (or is the set's own folder), and is where a relative PATH starts; left out, it is
    $CONVOLAB_DATA or ~/.cache/convolab for sets, and the current folder for PATH. A set that is not there is downloaded,
    unless `fetch` is off. `size` is the side of a folder's pictures; a published set keeps its own. `on_progress(done, total)`
    hears of bytes while a file is downloaded, and of pictures while a folder is read.
    Raises LabError if the name is unknown, the set cannot be had, or its files are damaged.

    >>> load("digits").train
    ImageSet('digits': 1438 pictures of 1x8x8, 10 classes)
    """
    if name.startswith("folder:"):
        from convolab.data.image_folder import read_folder

        path = Path(name.removeprefix("folder:")).expanduser()
        need(name != "folder:", "'folder:' names no folder: write folder:PATH")
        return Pictures(*read_folder((root or Path()).expanduser() / path, size, on_progress))

    source = _known(name)
    if name == "digits":
        from convolab.data.readers.digits import read_digits

        return Pictures(*read_digits())
    folder = _obtain(source, root, on_progress, online=fetch)
    if name == "fashion_mnist":
        from convolab.data.readers.fashion_mnist import read_fashion_mnist

        return Pictures(*read_fashion_mnist(folder))
    from convolab.data.readers.cifar import read_cifar10, read_cifar100

    return Pictures(*{"cifar10": read_cifar10, "cifar100": read_cifar100}[name](folder))


def fetch(name: str, root: Path | None = None, on_progress: Progress | None = None) -> Path:
    """Make sure a published set is on this disk, and return its folder; for `root` see `load`.

    Raises LabError if the set is not one to download, cannot be reached, or arrives damaged.
    """
    need(not name.startswith("folder:"), f"{name} is on this disk already: there is nothing to download")
    source = _known(name)
    need(source.downloads, f"{name} comes with an installed library: there is nothing to download")
    return _obtain(source, root, on_progress, online=True)


def _known(name: str) -> Source:
    need(name in SOURCES, f"no picture set is called '{name}': {nearest(name, [*SOURCES, 'folder:PATH'])}")
    return SOURCES[name]


def _obtain(source: Source, root: Path | None, on_progress: Progress | None, online: bool) -> Path:
    """The folder of a set: as it lies there, or from files put there by hand, or downloaded."""
    root = (root or Path(os.environ.get("CONVOLAB_DATA") or "~/.cache/convolab")).expanduser()
    itself = root.name == source.folder or not source.missing(root)
    folder = root if itself else root / source.folder
    if not source.missing(folder):
        return folder

    place = folder.parent if source.archived else folder
    absent = [file for file in source.downloads if not (place / file.file).exists()]
    need(online or not absent, f"{source.name} is not in {root}: {_by_hand(absent, place)}, or allow the download")

    from filelock import FileLock  # takes 0.05 s to import, and most runs find their pictures in place

    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f".{source.name}.lock"):  # of several runs that start together, one downloads
            if source.missing(folder):
                _fill(source, folder, place, on_progress)
    return folder


def _fill(source: Source, folder: Path, place: Path, on_progress: Progress | None) -> None:
    lost = ", ".join(source.missing(folder))
    need(
        not (source.archived and folder.exists()),
        f"{folder} lacks {lost}: add what is missing, or remove the folder to have it fetched anew",
    )
    fetched = []
    for file in source.downloads:
        path = place / file.file
        if path.exists():
            need(
                matches(path, file.checksum),
                f"{path} is not the file at {file.address} (its {file.checksum.split(':')[0]} differs): remove it",
            )
            continue
        try:
            fetched.append(download(file.address, path, file.checksum, on_progress))
        except Unreachable as error:
            absent = [file for file in source.downloads if not (place / file.file).exists()]
            raise LabError(f"{error}: try again later, or {_by_hand(absent, place)}") from error
    if source.archived:
        unpack(place / source.downloads[0].file, folder)
        for path in fetched:  # what a person put there stays; our own archive only takes up room
            path.unlink()
    lost = ", ".join(source.missing(folder))
    need(not lost, f"{folder} lacks {lost}, though it was just fetched: remove the folder and report this")


def _by_hand(files: Sequence[Download], place: Path) -> str:
    return f"download {' and '.join(file.address for file in files)} and put {'it' if len(files) == 1 else 'them'} in {place}"
