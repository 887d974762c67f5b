"""The user's own dataset: an .npz file of arrays, as Keras and MedMNIST name them. Nothing is unpickled."""

import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.lib import format as npy_format

try:
    from lzma import LZMAError
except ImportError:  # a Python without it does not read such members either
    LZMAError = zlib.error

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import user_path
from convolab.core.text import format_bytes
from convolab.data.catalog import require_default_size
from convolab.data.folder_layout import MAX_FILES, shown_path
from convolab.data.image_source import MAX_CLASSES, MAX_SIDE, MIN_SIDE, Decoded, ImageSource, empty_classes

ARRAY_NAMES = {  # of images, and of their labels: the split
    ("x_train", "y_train"): "train",
    ("x_val", "y_val"): "validation",
    ("x_test", "y_test"): "test",
    ("train_images", "train_labels"): "train",
    ("val_images", "val_labels"): "validation",
    ("test_images", "test_labels"): "test",
    ("images", "labels"): "",
}
CLASS_NAMES = "classes"
WANTED = "x_train, y_train, x_test, y_test; train_images, train_labels, val_..., test_...; or images, labels"
MAX_MEMBERS = 1000
MAX_NAME_BYTES = 20_000_000  # of all class names
CHUNK_BYTES = 2**22
ZIP_ERRORS = (  # what reading a damaged zip may raise; RuntimeError: it is encrypted, or packed as Python cannot
    zipfile.BadZipFile, zlib.error, LZMAError, RuntimeError, OSError, EOFError, ValueError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """An array of the file, by its header: nothing of it has been read."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    header_bytes: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def find_npz_images(given: str, data_dir: Path | None, image_size: int) -> ImageSource:
    """The images of an .npz file; none is decompressed, but their labels are. They keep their size.

    Its arrays are `x_train`, `y_train` and perhaps `x_val`, `x_test`; or `train_images`, `train_labels` and so on; or
    `images` and `labels`, of which a fixed fifth of each class is for testing. Images are uint8, [N, H, W], [N, H, W, C]
    or [N, C, H, W] with 1 or 3 channels; labels are whole numbers from 0, [N] or [N, 1]. An array `classes` may name the
    classes.

    Args:
        given: the path of the file.
        data_dir: where a relative path starts, by default the current folder.
        image_size: the default; another one is refused.

    Raises LabError, from the headers alone, for other types and shapes, and for an array that is not what it says.
    """
    file = (data_dir or Path()) / user_path(given)
    where = shown_path(file)
    require_default_size(image_size, f"the images of {where}")
    require(file.is_file(), f"cannot read {where}: give an .npz file with {WANTED}")
    try:
        with zipfile.ZipFile(file) as archive:
            return describe_archive(archive, file, where)
    except ZIP_ERRORS as error:
        raise LabError(f"{where} is no .npz file, or is damaged ({escape_line(str(error), 200)})") from error


def describe_archive(archive: zipfile.ZipFile, file: Path, where: str) -> ImageSource:
    names = archive.namelist()
    require(
        len(names) <= MAX_MEMBERS,
        f"{where} has {len(names):,} arrays, more than {MAX_MEMBERS:,}: save the images as one array",
    )
    present = {pair: split for pair, split in ARRAY_NAMES.items() if all(f"{name}.npy" in names for name in pair)}
    found = ", ".join(escape_line(name.removesuffix(".npy"), 40) for name in names[:8]) or "nothing"
    splits_found = list(present.values())
    require(
        ("" in splits_found or "train" in splits_found) and len(set(splits_found)) == len(splits_found),
        f"{where} holds {found}: name the arrays {WANTED}",
    )
    require(
        "" not in splits_found or len(splits_found) == 1,
        f"{where} holds images and labels beside the arrays of splits: name them train_images and train_labels",
    )
    images = {split: read_header(archive, pair[0], where) for pair, split in present.items()}
    label_arrays = {split: read_header(archive, pair[1], where) for pair, split in present.items()}
    order = [split for split in ("", "train", "validation", "test") if split in images]
    shapes = {split: image_shape(images[split], where) for split in order}
    first = shapes[order[0]]
    splits: list[str] = []
    labels: list[int] = []
    for split in order:
        require(
            shapes[split][1:3] == first[1:3], f"{where}: the images of {split} have another size than those of train"
        )
        count = shapes[split][0]
        require(len(labels) + count <= MAX_FILES, f"{where} has more than {MAX_FILES:,} images: give fewer")
        labels += read_labels(archive, label_arrays[split], count, where)
        splits += [split] * count
    require(
        min(labels, default=0) != 1 or "classes.npy" in names,
        f"{where}: the labels go from 1 to {max(labels, default=1)}, and classes are counted from 0: subtract 1",
    )
    classes = read_classes(archive, names, max(labels, default=-1) + 1, where)
    members = [images[split] for split in order]
    return ImageSource(
        name=escape_line(file.stem, 200),
        where=shown_path(file.resolve()),
        classes=classes,
        splits=splits,
        labels=labels,
        names=[f"{images[split].name}[{index}]" for split in order for index in range(shapes[split][0])],
        size=(first[1], first[2]),
        decode=lambda: decode_members(file, members, where),
        files=[file],
        kind="npz",
        never_empty=empty_classes(classes, splits, where),
    )


def read_header(archive: zipfile.ZipFile, name: str, where: str) -> Member:
    """The header of an array. Raises LabError if it holds objects, or the file does not hold what it claims."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        version = npy_format.read_magic(stream)
        require(version in ((1, 0), (2, 0)), f"{where}: {name} has version {version} of the format: save it again")
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        try:
            shape, is_fortran, dtype = read(stream)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise LabError(f"{where}: the header of {name} is damaged: save it again") from error
        header_bytes = stream.tell()
    require(not dtype.hasobject, f"{where}: {name} holds Python objects, which are not read: save it as numbers")
    require(all(isinstance(side, int) and side >= 0 for side in shape), f"{where}: the header of {name} is damaged")
    member = Member(name, tuple(int(side) for side in shape), dtype, is_fortran, header_bytes)
    require(
        member.num_bytes < 2**60, f"{where}: the header of {name} claims more bytes than any disk has: save it again"
    )
    require(
        member.num_bytes + header_bytes == info.file_size,
        f"{where}: {name} claims {format_bytes(member.num_bytes)}, but has {format_bytes(info.file_size)}: save it again",
    )
    return member


def image_shape(member: Member, where: str) -> tuple[int, int, int, int]:
    """N, height, width and the axis of the channels (0 if there is none) of an array of images."""
    is_bytes = member.dtype == np.uint8
    hint = (
        "save (255 * images).round().astype('uint8') if they are in [0, 1], images.round().astype('uint8') if in 0 to 255"
        if member.dtype.kind == "f"
        else "save images.astype('uint8')"
    )
    require(is_bytes, f"{where}: {member.name} is {member.dtype}, and images are uint8: {hint}")
    require(
        not member.is_fortran, f"{where}: {member.name} is in Fortran's order: save numpy.ascontiguousarray(images)"
    )
    shape = member.shape
    wanted = "give [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
    channel_axis = 0
    if len(shape) == 4:
        channel_axis = 3 if shape[3] in (1, 3) else 1
        require(shape[channel_axis] in (1, 3), f"{where}: {member.name} has the shape {list(shape)}: {wanted}")
    require(len(shape) in (3, 4), f"{where}: {member.name} has the shape {list(shape)}: {wanted}")
    height, width = (side for axis, side in enumerate(shape) if axis not in (0, channel_axis or -1))
    require(
        all(MIN_SIDE <= side <= MAX_SIDE for side in (height, width)),
        f"{where}: the images of {member.name} have {height} x {width} pixels: give sides from {MIN_SIDE} to {MAX_SIDE}",
    )
    return shape[0], height, width, channel_axis


def read_labels(archive: zipfile.ZipFile, member: Member, count: int, where: str) -> list[int]:
    wanted = f"give whole numbers, [{count}] or [{count}, 1], one for each image"
    require(
        member.dtype.kind in "iu" and member.shape in ((count,), (count, 1)),
        f"{where}: {member.name} is {member.dtype} {list(member.shape)}: {wanted}",
    )
    values = read_array(archive, member)
    if not count:
        return []
    low, high = int(values.min()), int(values.max())
    require(
        low >= 0 and high < MAX_CLASSES,
        f"{where}: {member.name} runs from {low} to {high}: number the classes from 0, to {MAX_CLASSES - 1:,} at most",
    )
    return values.ravel().astype(np.int64).tolist()


def read_classes(archive: zipfile.ZipFile, names: Sequence[str], count: int, where: str) -> tuple[str, ...]:
    """The names in the array `classes`; without it the numbers."""
    if f"{CLASS_NAMES}.npy" not in names:
        return tuple(map(str, range(count)))
    member = read_header(archive, CLASS_NAMES, where)
    require(
        member.dtype.kind == "U" and len(member.shape) == 1 and member.num_bytes <= MAX_NAME_BYTES,
        f"{where}: {CLASS_NAMES} is {member.dtype} {list(member.shape)}: give an array of strings, one for each class",
    )
    classes = tuple(map(str, read_array(archive, member).tolist()))
    require(
        len(classes) >= count, f"{where}: {CLASS_NAMES} has {len(classes)} names, but the labels go up to {count - 1}"
    )
    return classes


def read_array(archive: zipfile.ZipFile, member: Member) -> np.ndarray:
    with archive.open(f"{member.name}.npy") as stream:
        stream.read(member.header_bytes)
        return np.frombuffer(read_exactly(stream, member.num_bytes), member.dtype).reshape(member.shape)


def decode_members(file: Path, members: Sequence[Member], where: str) -> Decoded:
    """Every image of some arrays, [C, H, W], a few megabytes at a time."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in members:
                count, height, width, channel_axis = image_shape(member, where)
                row_bytes = math.prod(member.shape[1:])
                rows = max(1, CHUNK_BYTES // row_bytes)
                with archive.open(f"{member.name}.npy") as stream:
                    stream.read(member.header_bytes)
                    for start in range(0, count, rows):
                        some = min(rows, count - start)
                        values = np.frombuffer(read_exactly(stream, some * row_bytes), np.uint8)
                        images = torch.from_numpy(values.reshape(some, *member.shape[1:]))
                        yield from (images.movedim(3, 1) if channel_axis == 3 else images.view(some, -1, height, width))
    except ZIP_ERRORS as error:
        raise LabError(f"{where} is damaged ({escape_line(str(error), 200)}): save it again") from error


def read_exactly(stream: IO[bytes] | zipfile.ZipExtFile, count: int) -> bytearray:
    """So many bytes. Raises EOFError if there are fewer; no more memory is taken than there are."""
    content = bytearray()
    while len(content) < count:
        part = stream.read(min(count - len(content), CHUNK_BYTES))
        if not part:
            raise EOFError("it ends too early")
        content += part
    return content
