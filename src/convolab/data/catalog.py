"""Where picture sets come from: a table of the published ones, and any folder that holds a folder of pictures per class.

This room is read by commands that only list the sets, so torch and whatever decodes pictures is imported where it is needed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from convolab.core.errors import LabError, require, suggest
from convolab.core.files import translate_write_errors
from convolab.data.download import DownloadError, ProgressCallback, download_file, extract_archive, matches_checksum

if TYPE_CHECKING:
    from convolab.data.dataset import ImageDataset


class DatasetSplits(NamedTuple):
    """A set as it is used: what to train on and what to test on."""

    train: "ImageDataset"
    test: "ImageDataset"
    unreadable: tuple[str, ...] = ()  # the files of a folder that could not be read, each with the reason


@dataclass(frozen=True)
class RemoteFile:
    """One published file."""

    url: str
    checksum: str  # "sha256:..." or "md5:..."

    @property
    def filename(self) -> str:
        """The file's own name, the end of its address."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DatasetInfo:
    """A published picture set, and all that can be said of it without opening it."""

    name: str
    description: str
    shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_train: int  # pictures to train on
    num_test: int  # and to test on
    download_size_mb: float = 0.0  # to download; 0 if it comes with an installed library
    default_augment: tuple[str, ...] = ()  # the usual augmentation
    folder: str = ""  # the folder it is kept in
    required_files: tuple[str, ...] = ()  # what a whole folder holds
    downloads: tuple[RemoteFile, ...] = ()  # the files themselves, or one archive that holds the folder

    @property
    def is_archive(self) -> bool:
        """Whether the download is an archive to unpack."""
        return len(self.downloads) == 1

    def missing_files(self, folder: Path) -> list[str]:
        """The names of the files that a folder lacks."""
        return [name for name in self.required_files if not (folder / name).is_file()]


CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST_FILES = (
    RemoteFile(FASHION_MNIST_URL + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    RemoteFile(FASHION_MNIST_URL + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    RemoteFile(FASHION_MNIST_URL + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    RemoteFile(FASHION_MNIST_URL + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
)

DATASETS: dict[str, DatasetInfo] = {
    source.name: source
    for source in (
        DatasetInfo(
            "digits",
            "handwritten digits, 8 x 8 grey; come with scikit-learn",
            (1, 8, 8),
            num_classes=10,
            num_train=1_438,
            num_test=359,
        ),
        DatasetInfo(
            "fashion_mnist",
            "articles of clothing, 28 x 28 grey (Xiao, Rasul & Vollgraf 2017)",
            (1, 28, 28),
            num_classes=10,
            num_train=60_000,
            num_test=10_000,
            download_size_mb=30.9,
            default_augment=("crop:2", "flip"),
            folder="fashion-mnist",
            required_files=tuple(download.filename for download in FASHION_MNIST_FILES),
            downloads=FASHION_MNIST_FILES,
        ),
        DatasetInfo(
            "cifar10",
            "animals and vehicles, 32 x 32 colour (Krizhevsky 2009)",
            (3, 32, 32),
            num_classes=10,
            num_train=50_000,
            num_test=10_000,
            download_size_mb=170.5,
            default_augment=("crop:4", "flip"),
            folder="cifar-10-batches-py",
            required_files=(
                "data_batch_1",
                "data_batch_2",
                "data_batch_3",
                "data_batch_4",
                "data_batch_5",
                "test_batch",
                "batches.meta",
            ),
            downloads=(
                RemoteFile(
                    CIFAR_URL + "cifar-10-python.tar.gz",
                    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                ),
            ),
        ),
        DatasetInfo(
            "cifar100",
            "a hundred kinds of things, 32 x 32 colour, fine labels (Krizhevsky 2009)",
            (3, 32, 32),
            num_classes=100,
            num_train=50_000,
            num_test=10_000,
            download_size_mb=169.0,
            default_augment=("crop:4", "flip"),
            folder="cifar-100-python",
            required_files=("train", "test", "meta"),
            downloads=(
                RemoteFile(
                    CIFAR_URL + "cifar-100-python.tar.gz",
                    "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                ),
            ),
        ),
    )
}


def default_augmentation(name: str) -> tuple[str, ...]:
    """The augmentation a set is usually trained with. Raises LabError for an unknown name.

    >>> usual_augmentation("cifar10"), usual_augmentation("folder:pets"), usual_augmentation("digits")
    (('crop:4', 'flip'), ('crop:4', 'flip'), ())
    """
    return ("crop:4", "flip") if name.startswith("folder:") else _dataset_info(name).default_augment


def load(
    name: str,
    data_dir: Path | None = None,
    *,
    image_size: int = 32,
    download: bool = True,
    on_progress: ProgressCallback | None = None,
) -> DatasetSplits:
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
        from convolab.data.image_folder import read_image_folder

        path = Path(name.removeprefix("folder:")).expanduser()
        require(name != "folder:", "'folder:' names no folder: write folder:PATH")
        return DatasetSplits(*read_image_folder((data_dir or Path()).expanduser() / path, image_size, on_progress))

    info = _dataset_info(name)
    if name == "digits":
        from convolab.data.readers.digits import read_digits

        return DatasetSplits(*read_digits())
    folder = _ensure_downloaded(info, data_dir, on_progress, allow_download=download)
    if name == "fashion_mnist":
        from convolab.data.readers.fashion_mnist import read_fashion_mnist

        return DatasetSplits(*read_fashion_mnist(folder))
    from convolab.data.readers.cifar import read_cifar10, read_cifar100

    return DatasetSplits(*{"cifar10": read_cifar10, "cifar100": read_cifar100}[name](folder))


def download_dataset(name: str, data_dir: Path | None = None, on_progress: ProgressCallback | None = None) -> Path:
    """Make sure a published set is on this disk, and return its folder; for `root` see `load`.

    Raises LabError if the set is not one to download, cannot be reached, or arrives damaged.
    """
    require(not name.startswith("folder:"), f"{name} is on this disk already: there is nothing to download")
    info = _dataset_info(name)
    require(info.downloads, f"{name} comes with an installed library: there is nothing to download")
    return _ensure_downloaded(info, data_dir, on_progress, allow_download=True)


def _dataset_info(name: str) -> DatasetInfo:
    require(name in DATASETS, f"no picture set is called '{name}': {suggest(name, [*DATASETS, 'folder:PATH'])}")
    return DATASETS[name]


def _ensure_downloaded(
    info: DatasetInfo, data_dir: Path | None, on_progress: ProgressCallback | None, allow_download: bool
) -> Path:
    """The folder of a set: as it lies there, or from files put there by hand, or downloaded."""
    data_dir = (data_dir or Path(os.environ.get("CONVOLAB_DATA") or "~/.cache/convolab")).expanduser()
    is_dataset_folder = data_dir.name == info.folder or not info.missing_files(data_dir)
    folder = data_dir if is_dataset_folder else data_dir / info.folder
    if not info.missing_files(folder):
        return folder

    download_folder = folder.parent if info.is_archive else folder
    missing = [file for file in info.downloads if not (download_folder / file.filename).exists()]
    require(
        allow_download or not missing,
        f"{info.name} is not in {data_dir}: {_manual_download_hint(missing, download_folder)}, or allow the download",
    )

    from filelock import FileLock  # takes 0.05 s to import, and most runs find their pictures in place

    with translate_write_errors(download_folder):
        download_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(download_folder / f".{info.name}.lock"):  # of several runs that start together, one downloads
            if info.missing_files(folder):
                _download_and_extract(info, folder, download_folder, on_progress)
    return folder


def _download_and_extract(
    info: DatasetInfo, folder: Path, download_folder: Path, on_progress: ProgressCallback | None
) -> None:
    missing = ", ".join(info.missing_files(folder))
    require(
        not (info.is_archive and folder.exists()),
        f"{folder} lacks {missing}: add what is missing, or remove the folder to have it fetched anew",
    )
    downloaded = []
    for file in info.downloads:
        path = download_folder / file.filename
        if path.exists():
            require(
                matches_checksum(path, file.checksum),
                f"{path} is not the file at {file.url} (its {file.checksum.split(':')[0]} differs): remove it",
            )
            continue
        try:
            downloaded.append(download_file(file.url, path, file.checksum, on_progress))
        except DownloadError as error:
            not_downloaded = [file for file in info.downloads if not (download_folder / file.filename).exists()]
            raise LabError(
                f"{error}: try again later, or {_manual_download_hint(not_downloaded, download_folder)}"
            ) from error
    if info.is_archive:
        extract_archive(download_folder / info.downloads[0].filename, folder)
        for path in downloaded:  # what a person put there stays; our own archive only takes up room
            path.unlink()
    missing = ", ".join(info.missing_files(folder))
    require(not missing, f"{folder} lacks {missing}, though it was just fetched: remove the folder and report this")


def _manual_download_hint(files: Sequence[RemoteFile], download_folder: Path) -> str:
    return f"download {' and '.join(file.url for file in files)} and put {'it' if len(files) == 1 else 'them'} in {download_folder}"
