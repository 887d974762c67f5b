"""The published datasets by name, and how to load one, or the user's own images.

Commands that only list the datasets import this module, so torch and whatever decodes images is imported where needed.
"""

import importlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from convolab.core.errors import LabError, letters_and_digits, require, suggest
from convolab.core.files import user_path
from convolab.core.types import MessageCallback, python_values
from convolab.data.download import DatasetFiles, ProgressCallback, RemoteFile, ensure_downloaded

if TYPE_CHECKING:
    import convolab.data.image_source
    import convolab.data.splits


@dataclass(frozen=True)
class DatasetInfo(DatasetFiles):
    """A published dataset, and all that can be known of it without opening it."""

    description: str
    shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_train: int  # training images
    num_test: int  # test images
    reader: str  # module:function in convolab.data.readers, which takes the folder, if there is one to download
    default_augment: tuple[str, ...] = ()  # the usual augmentation, as in a recipe's data.augment


@dataclass(frozen=True)
class OwnDataKind:
    """A form that a person's own images may have, named by a prefix."""

    example: str  # prefix:PATH
    description: str
    finder: str  # module:function in convolab.data, which lists the images and decodes none


OWN_DATA = {
    kind.example.partition(":")[0]: kind
    for kind in (
        OwnDataKind(
            "folder:PATH",
            "one folder of images per class, optionally under train/, val/ and test/",
            "image_folder:find_image_folder",
        ),
        OwnDataKind(
            "csv:PATH",
            "a CSV file with the columns path, label and perhaps split",
            "image_csv:find_csv_images",
        ),
        OwnDataKind(
            "npz:PATH",
            "arrays x_train, y_train, x_test, y_test; train_images ...; or images, labels",
            "image_npz:find_npz_images",
        ),
        OwnDataKind(
            "hf:PATH",
            "a Hugging Face dataset on this disk: parquet files, or what save_to_disk wrote",
            "image_hf:find_hf_images",
        ),
        OwnDataKind(
            "torchvision:NAME@PATH",
            "what torchvision.datasets.NAME(PATH, download=True) left on this disk",
            "image_torchvision:find_torchvision_images",
        ),
    )
}
# Of torchvision's sets those whose images may not be mirrored: digits, letters and signs would mean something else.
NOT_MIRRORED = ("GTSRB", "KMNIST", "MNIST", "RenderedSST2", "SVHN", "USPS")
DEFAULT_SIZE = 32  # side in pixels that one's own images are resized to
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MNIST_FILES = (
    RemoteFile(FASHION_MNIST_URL + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    RemoteFile(FASHION_MNIST_URL + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
    RemoteFile(FASHION_MNIST_URL + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
    RemoteFile(FASHION_MNIST_URL + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
)

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits",
            "handwritten digits, 8 x 8 gray; included in scikit-learn",
            (1, 8, 8),
            num_classes=10,
            num_train=1_438,
            num_test=359,
            reader="digits:read_digits",
        ),
        DatasetInfo(
            "fashion_mnist",
            "articles of clothing, 28 x 28 gray (Xiao, Rasul & Vollgraf 2017)",
            (1, 28, 28),
            num_classes=10,
            num_train=60_000,
            num_test=10_000,
            reader="fashion_mnist:read_fashion_mnist",
            download_size_mb=30.9,
            default_augment=("crop:2", "flip"),
            folder="fashion-mnist",
            required_files=tuple(download.filename for download in FASHION_MNIST_FILES),
            downloads=FASHION_MNIST_FILES,
        ),
        DatasetInfo(
            "cifar10",
            "animals and vehicles, 32 x 32 color (Krizhevsky 2009)",
            (3, 32, 32),
            num_classes=10,
            num_train=50_000,
            num_test=10_000,
            reader="cifar:read_cifar10",
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
            "a hundred kinds of objects, 32 x 32 color, fine labels (Krizhevsky 2009)",
            (3, 32, 32),
            num_classes=100,
            num_train=50_000,
            num_test=10_000,
            reader="cifar:read_cifar100",
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
    """The augmentation a dataset is usually trained with. Raises LabError for an unknown name.

    >>> default_augmentation("cifar10"), default_augmentation("folder:pets"), default_augmentation("digits")
    (('crop:4', 'flip'), ('crop:4', 'flip'), ())
    >>> default_augmentation("torchvision:MNIST")
    ('crop:4',)
    """
    if not is_own_data(name):
        return dataset_info(name).default_augment
    is_mirrored = not (name.startswith("torchvision:") and short_name(name) in NOT_MIRRORED)
    return ("crop:4", "flip") if is_mirrored else ("crop:4",)


def is_own_data(name: str) -> bool:
    """Whether a name is a prefix and where a person's own images are.

    >>> is_own_data("folder:pets"), is_own_data("digits")
    (True, False)
    """
    prefix, colon, _ = name.partition(":")
    return bool(colon) and prefix in OWN_DATA


def short_name(name: str) -> str:
    """A dataset's name as a part of a file's name.

    >>> short_name("folder:/home/me/pets"), short_name("npz:pets.npz"), short_name("digits")
    ('pets', 'pets', 'digits')
    >>> short_name("torchvision:DTD@/data")
    'DTD'
    """
    if not is_own_data(name):
        return name
    prefix, _, given = name.partition(":")
    path = PurePath(given.partition("@")[0] if prefix == "torchvision" else given)
    return path.stem if path.suffix in (".csv", ".npz") else path.name


def require_default_size(image_size: int, what: str) -> None:
    """Raise LabError if another size is requested of images that keep their own."""
    require(
        image_size == DEFAULT_SIZE,
        f"an image size of {image_size} was requested, but {what} keep theirs: leave data.image_size out",
    )


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    image_size: int = DEFAULT_SIZE,
    download: bool = True,
    on_progress: ProgressCallback | None = None,
    on_message: MessageCallback | None = None,
) -> "convolab.data.splits.DatasetSplits":
    """Read a dataset: into memory, or, if it is larger than a gigabyte, decode it once into a file that is mapped.

    Args:
        name: a name of `DATASETS`, or a person's own images as in `OWN_DATA`, such as `folder:PATH` for a folder with
            one subfolder of images per class, or with such folders named train, val and test.
        data_dir: the folder that holds downloaded datasets (or the dataset's own folder), and where a relative PATH
            starts. By default $CONVOLAB_DATA or ~/.cache/convolab for datasets, and the current folder for PATH.
        image_size: height and width, in pixels, that one's own images are resized to, 8 to 512; published datasets
            and arrays keep theirs, and any other than the default is refused.
        download: whether a dataset that is not on the disk may be downloaded.
        on_progress: called with (done, total): bytes while a file is downloaded, images while they are decoded.
        on_message: called with how much will be decoded to the disk, before it is.

    Returns:
        The splits: `train`, `test` and perhaps `validation`, datasets of uint8 images [N, C, H, W] with their labels;
        `unreadable`, the files of a folder that could not be read, each with the reason; `notes`, what else a person
        should know of a folder, such as images that are in training and test.

    Raises LabError if the name is unknown, the dataset cannot be downloaded, its files are damaged, or a folder does
    not have at least two classes of readable images.

    >>> load("digits").train
    ImageDataset('digits': 1438 images of 1x8x8, 10 classes)
    """
    from convolab.data.splits import DatasetSplits

    require(isinstance(name, str), f"a dataset is given by its name or folder:PATH, and not by a {type(name).__name__}")
    folder = user_path(data_dir) if data_dir is not None else None
    image_size = python_values(image_size)
    if is_own_data(name):
        from convolab.data.image_source import decode_source

        return decode_source(find_own_images(name, folder, image_size), on_progress, on_message)

    info = dataset_info(name)
    require_default_size(image_size, f"the images of '{name}'")
    module, function = info.reader.split(":")
    read = getattr(importlib.import_module(f"convolab.data.readers.{module}"), function)
    if not info.downloads:
        return DatasetSplits(*read())
    return DatasetSplits(*read(ensure_downloaded(info, folder, on_progress, allow_download=download)))


def find_own_images(
    name: str, data_dir: Path | None, image_size: int = DEFAULT_SIZE
) -> "convolab.data.image_source.ImageSource":
    """A person's own images, listed and not decoded; for the arguments see `load`."""
    prefix, _, given = name.partition(":")
    require(given, f"'{name}' has no path: write {OWN_DATA[prefix].example}")
    module, function = OWN_DATA[prefix].finder.split(":")
    find = getattr(importlib.import_module(f"convolab.data.{module}"), function)
    return find(given, data_dir, image_size)


def download_dataset(
    name: str, data_dir: Path | str | None = None, on_progress: ProgressCallback | None = None
) -> Path:
    """Make sure that a published dataset is on the disk, and return its folder; for the arguments see `load`.

    Raises LabError if there is nothing to download for this name, the download fails, or its checksum is wrong.
    """
    require(not is_own_data(name), f"{name} is on this disk: there is nothing to download")
    info = dataset_info(name)
    require(info.downloads, f"{name} is included in an installed library: there is nothing to download")
    return ensure_downloaded(info, data_dir, on_progress, allow_download=True)


def torchvision_name(name: str) -> str | None:
    """The dataset of torchvision that a name is a spelling of, where it is none of ours.

    >>> torchvision_name("mnist"), torchvision_name("CIFAR-10"), torchvision_name("x")
    ('MNIST', None, None)
    """
    from convolab.data.image_torchvision import KNOWN

    spelled = letters_and_digits(name)
    is_ours = any(letters_and_digits(ours) == spelled for ours in DATASETS)
    return None if is_ours else next((theirs for theirs in KNOWN if letters_and_digits(theirs) == spelled), None)


def dataset_info(name: str) -> DatasetInfo:
    kind = "folder" if name not in DATASETS and os.path.isdir(name) else Path(name).suffix[1:].lower()
    is_path = kind in OWN_DATA and os.path.exists(name)
    require(not is_path, f"there is no dataset '{name}': did you mean {kind}:{name}, your own images?")
    if name not in DATASETS and (theirs := torchvision_name(name)):
        raise LabError(
            f"there is no dataset '{name}': did you mean torchvision:{theirs}@PATH? PATH is the folder that "
            f"torchvision.datasets.{theirs}(PATH, download=True) has filled"
        )
    require(
        name in DATASETS,
        f"there is no dataset '{name}': {suggest(name, [*DATASETS, *(kind.example for kind in OWN_DATA.values())])}",
    )
    return DATASETS[name]
