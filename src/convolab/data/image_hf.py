"""The user's own dataset: a Hugging Face dataset on the disk, read with pyarrow. No code of a dataset is run.

What it may look like, below its folder:

train-00000-of-00002.parquet, data/test.parquet, default/...    as on the hub: the split begins the name
dataset_dict.json, train/state.json, train/data-....arrow       as `datasets.save_to_disk` writes it
state.json, data-00000-of-00001.arrow                           the same without splits
"""

import importlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import parse_json, read_json, user_path
from convolab.core.text import truncate_list
from convolab.data.folder_layout import MAX_FILES, SPLIT_NAMES, shown_path, subfolder_names
from convolab.data.image_csv import class_order
from convolab.data.image_io import decode_image, resize_and_center_crop
from convolab.data.image_source import Decoded, ImageSource, decode_in_threads, describe_failure, empty_classes

IMAGE_COLUMNS = ("image", "img", "pixels", "photo")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "category")
WANTED = "give a folder of train-*.parquet and test-*.parquet, or one that datasets.save_to_disk wrote"
MAX_SHARDS = 10_000  # files of a dataset
MAX_EXPANSION = 20  # bytes that a parquet file may claim to hold, for each of its own; images hardly shrink
MIN_EXPANSION_BYTES = 100_000_000  # which any may claim
ROWS_PER_BATCH = 64
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of messages in an arrow file


@dataclass(frozen=True)
class Shard:
    """A file of a split."""

    split: str
    path: Path


def find_hf_images(given: str, data_dir: Path | None, image_size: int) -> ImageSource:
    """The images of a Hugging Face dataset; none is decoded, but its labels are read.

    A column holds the images as files, each a struct of `bytes` and `path`; another one, of integers or text, the
    labels. Class names are those of the dataset's ClassLabel; without one they are the labels.

    Args:
        given: the path of the folder.
        data_dir: where a relative path starts, by default the current folder.
        image_size: height and width, in pixels, that each image is resized to, 8 to 512; the center is kept.

    Raises LabError if pyarrow is not installed, and for another layout, other columns, or damaged files.
    """
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise LabError("a Hugging Face dataset needs pyarrow: pip install 'convolab[hf]'") from error
    folder = (data_dir or Path()) / user_path(given)
    where = shown_path(folder)
    require(folder.is_dir(), f"cannot read {where}: {WANTED}")
    shards, notes = find_shards(folder)
    try:
        return describe_shards(folder, shards, notes, image_size)
    except unexpected_errors() as error:
        raise LabError(f"{where} is damaged ({escape_line(str(error), 200)}): get it again") from error


def unexpected_errors() -> tuple[type[Exception], ...]:
    """What reading a damaged file may raise."""
    arrow: Any = importlib.import_module("pyarrow")
    return (arrow.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError, StopIteration)


def describe_shards(folder: Path, shards: list[Shard], notes: list[str], image_size: int) -> ImageSource:
    where = shown_path(folder.resolve())
    schema = read_schema(shards[0].path)
    image_column, label_column = find_columns(schema, where)
    splits: list[str] = []
    names: list[str] = []
    values: list[int | str] = []
    in_split: Counter[str] = Counter()  # images so far
    for shard in shards:
        for paths, labels in iter_labels(shard.path, image_column, label_column):
            require(len(values) + len(labels) <= MAX_FILES, f"{where} has more than {MAX_FILES:,} images: give fewer")
            for place, (path, label) in enumerate(zip(paths, labels, strict=True), in_split[shard.split]):
                name = escape_line(str(path), 200) if path else f"{shard.split or 'image'}[{place}]"
                require(isinstance(label, int | str), f"{where}: {name} has no label in the column {label_column}")
                names.append(name)
                values.append(label)
            splits += [shard.split] * len(labels)
            in_split[shard.split] += len(labels)
    require(values, f"{where} has no rows: {WANTED}")
    class_names = find_class_names(folder, shards, schema, label_column)
    for split in ("test", "validation"):
        of_split = [value for value, its in zip(values, splits, strict=True) if its == split]
        if of_split and all(value == -1 for value in of_split):
            notes = [*notes, f"the {split} images are left out: they have no labels (all are -1)"]
            kept = [index for index, its in enumerate(splits) if its != split]
            splits, names = ([column[index] for index in kept] for column in (splits, names))
            values = [values[index] for index in kept]
            shards = [shard for shard in shards if shard.split != split]
    if class_names is None:
        texts = [str(value) for value in values]
        classes = tuple(sorted(set(texts), key=class_order(texts)))
        label_of = {name: label for label, name in enumerate(classes)}
        labels = [label_of[text] for text in texts]
    else:
        classes = class_names
        labels = [value if isinstance(value, int) else classes.index(value) for value in values]
        low, high = min(labels), max(labels)
        require(
            low >= 0 and high < len(classes),
            f"{where}: the labels run from {low} to {high}, and {len(classes)} classes are named",
        )
    size = (image_size, image_size)
    return ImageSource(
        name=escape_line(folder.resolve().name, 200) or "/",
        where=where,
        classes=classes,
        splits=splits,
        labels=labels,
        names=names,
        size=size,
        decode=lambda: decode_shards(shards, image_column, names, size, where),
        files=[shard.path for shard in shards],
        kind=f"hf {image_column} {label_column}",
        never_empty=empty_classes(classes, splits, where),
        notes=tuple(notes),
    )


def find_shards(folder: Path) -> tuple[list[Shard], list[str]]:
    """The files of a dataset, those of a split together, and notes on what is not read. Raises LabError for none."""
    where = shown_path(folder)
    if (folder / "dataset_dict.json").is_file():
        listed = read_json(folder / "dataset_dict.json")
        found = listed.get("splits") if isinstance(listed, dict) else None
        require(isinstance(found, list) and found, f"{where}/dataset_dict.json names no splits: {WANTED}")
        named = [(name, folder / name) for name in plain_names(found or (), folder / "dataset_dict.json")]
        shards = [Shard(split_of(name), path) for name, inner in named for path in saved_files(inner)]
        unread = [name for name, _ in named if not split_of(name)]
    elif (folder / "state.json").is_file():
        shards, unread = [Shard("", path) for path in saved_files(folder)], []
    else:
        places = [place for place in (folder, folder / "data") if place.is_dir() and any(place.glob("*.parquet"))]
        places = places or [folder / name for name in subfolder_names(folder) if any((folder / name).glob("*.parquet"))]
        require(places, f"{where} has no parquet files and no state.json of save_to_disk: {WANTED}")
        shown = escape_line(truncate_list([place.name for place in places]), 200)
        require(len(places) == 1, f"{where} has parquet files in {shown}: give one of these folders")
        paths = sorted(places[0].glob("*.parquet"))
        shards = [Shard(split_of(path.stem), path) for path in paths]
        unread = [path.name for path in paths if not split_of(path.stem)]
    require(shards and len(shards) <= MAX_SHARDS, f"{where} has {len(shards):,} files: {WANTED}")
    if not any(shard.split for shard in shards):
        return sorted(shards, key=lambda shard: str(shard.path)), []
    notes = [
        f"not read, because train, validation or test does not begin its name: {escape_line(name, 100)}"
        for name in unread
    ]
    return [shard for shard in shards if shard.split], notes


def split_of(name: str) -> str:
    """The split that a file's or folder's name begins with, or "".

    >>> split_of("train-00000-of-00002"), split_of("validation"), split_of("0000")
    ('train', 'validation', '')
    """
    return SPLIT_NAMES.get(re.split(r"[-_. ]", name)[0].casefold(), "")


def saved_files(folder: Path) -> list[Path]:
    """The arrow files that state.json lists."""
    state = read_json(folder / "state.json")
    entries = state.get("_data_files") if isinstance(state, dict) else None
    require(isinstance(entries, list) and entries, f"{shown_path(folder / 'state.json')} lists no files: {WANTED}")
    files = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries or ()]
    return [folder / name for name in plain_names(files, folder / "state.json")]


def plain_names(names: Sequence[object], source: Path) -> list[str]:
    """The names that a file lists. Raises LabError for what is not the name of a file or folder beside it."""
    plain = [name for name in names if isinstance(name, str) and Path(name).name == name and name not in ("", "..")]
    is_plain = len(plain) == len(names) and not any("\0" in name for name in plain)
    require(is_plain, f"{shown_path(source)} lists what is not a name in its folder: {WANTED}")
    return plain


def open_parquet(path: Path) -> Any:  # noqa: ANN401 (pyarrow may be missing)
    """A parquet file. Raises LabError if it claims to hold far more than it can."""
    file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
    groups = [file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups)]
    limit = MIN_EXPANSION_BYTES + MAX_EXPANSION * path.stat().st_size
    require(sum(map(abs, groups)) <= limit, f"{shown_path(path)} claims far more bytes than it has: get it again")
    require(file.metadata.num_rows <= MAX_FILES, f"{shown_path(path)} has more than {MAX_FILES:,} rows: give fewer")
    return file


def iter_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Some rows of a file at a time."""
    require(path.is_file(), f"{shown_path(path)} is missing: get it again")
    if path.suffix == ".parquet":
        with open_parquet(path) as file:
            yield from file.iter_batches(ROWS_PER_BATCH, columns=list(columns))
        return
    arrow: Any = importlib.import_module("pyarrow")
    require_uncompressed(path)
    with arrow.memory_map(str(path)) as mapped, arrow.ipc.open_stream(mapped) as reader:
        for batch in reader:
            batch.validate(full=True)  # a stranger's offsets may point anywhere
            for start in range(0, batch.num_rows, ROWS_PER_BATCH):
                yield batch.slice(start, ROWS_PER_BATCH)


def require_uncompressed(path: Path) -> None:
    """Raise LabError for an arrow file with compressed batches: a few bytes may be the compressed form of gigabytes."""
    arrow: Any = importlib.import_module("pyarrow")
    with arrow.memory_map(str(path)) as mapped:
        for message in arrow.ipc.MessageReader.open_stream(mapped):
            require(
                not is_compressed(message.metadata.to_pybytes()),
                f"{shown_path(path)} is compressed, so how much it holds is not known: write it with datasets.save_to_disk",
            )


def is_compressed(message: bytes) -> bool:
    """Whether a message of an arrow file is a compressed batch, by its metadata, a FlatBuffers table as in Message.fbs.

    pyarrow does not tell.
    """

    def follow(place: int) -> int:
        return place + int.from_bytes(message[place : place + 4], "little")

    def field_of(table: int, index: int) -> int:
        """Where a field is; 0: it is not there."""
        layout = table - int.from_bytes(message[table : table + 4], "little", signed=True)
        size, place = (int.from_bytes(message[at : at + 2], "little") for at in (layout, layout + 4 + 2 * index))
        return table + place if 4 + 2 * index < size and place else 0

    root = follow(0)
    kind, header = message[field_of(root, 1)], follow(field_of(root, 2))
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH):
        return False
    batch = follow(field_of(header, 1)) if kind == DICTIONARY_BATCH else header
    # Arrow 0.17 named the compression in the custom metadata of the message, which else has none.
    return bool(field_of(batch, 3) or field_of(root, 4))


def read_schema(path: Path) -> Any:  # noqa: ANN401
    require(path.is_file(), f"{shown_path(path)} is missing: get it again")
    if path.suffix == ".parquet":
        with open_parquet(path) as file:
            return file.schema_arrow
    arrow: Any = importlib.import_module("pyarrow")
    with arrow.memory_map(str(path)) as mapped, arrow.ipc.open_stream(mapped) as reader:
        return reader.schema


def find_columns(schema: Any, where: str) -> tuple[str, str]:  # noqa: ANN401
    """The column of the images and that of the labels."""
    types: Any = importlib.import_module("pyarrow").types
    images = [
        column.name
        for column in schema
        if types.is_struct(column.type) and {"bytes", "path"} <= {inner.name for inner in column.type}
    ]
    labels = [
        column.name
        for column in schema
        if types.is_integer(column.type) or types.is_string(column.type) or types.is_large_string(column.type)
    ]
    shown = escape_line(", ".join(schema.names), 200)
    image = [name for name in IMAGE_COLUMNS if name in images] or images
    require(
        image and (len(image) == 1 or image[0] in IMAGE_COLUMNS),
        f"{where} has the columns {shown}: one of them, called image, must hold images as structs of bytes and path",
    )
    label = [name for name in LABEL_COLUMNS if name in labels] or labels
    require(
        label and (len(label) == 1 or label[0] in LABEL_COLUMNS),
        f"{where} has the columns {shown}: call that of the labels, integers or text, label",
    )
    return image[0], label[0]


def iter_labels(path: Path, image_column: str, label_column: str) -> Iterator[tuple[list[Any], list[Any]]]:
    """The paths and the labels of some rows at a time; of the images nothing is read."""
    for batch in iter_batches(path, [f"{image_column}.path", label_column]):
        image = batch.column(image_column)
        yield image.field("path").to_pylist(), batch.column(label_column).to_pylist()


def find_class_names(
    folder: Path,
    shards: Sequence[Shard],
    schema: Any,  # noqa: ANN401
    column: str,
) -> tuple[str, ...] | None:
    """The names of the column's ClassLabel, in the file's own metadata or in dataset_info.json; None without one."""
    described = (schema.metadata or {}).get(b"huggingface")
    infos = [parse_json(described.decode(), shown_path(shards[0].path))] if described else []
    for place in (shards[0].path.parent, folder):
        if (place / "dataset_info.json").is_file():
            infos.append(read_json(place / "dataset_info.json"))
    for info in infos:
        feature = info.get("info", info).get("features", {}).get(column, {})
        names = feature.get("names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def decode_shards(
    shards: Sequence[Shard], image_column: str, names: Sequence[str], size: tuple[int, int], where: str
) -> Decoded:
    """Every image of some files, resized; for an unreadable one the reason."""

    def rows() -> Iterator[tuple[str, bytes | None]]:
        remaining = iter(names)
        for shard in shards:
            for batch in iter_batches(shard.path, [f"{image_column}.bytes"]):
                values = (value.as_py() for value in batch.column(image_column).field("bytes"))
                yield from zip(islice(remaining, batch.num_rows), values, strict=True)

    def read(row: tuple[str, bytes | None]) -> UInt8[Tensor, "3 h w"] | str:
        name, content = row
        try:
            require(content, f"{name}: the dataset holds only its path, and no bytes")
            return resize_and_center_crop(decode_image(io.BytesIO(content or b""), name), size, 3)
        except LabError as error:
            return describe_failure(error)

    try:
        yield from decode_in_threads(rows(), read)
    except unexpected_errors() as error:
        raise LabError(f"{where} is damaged ({escape_line(str(error), 200)}): get it again") from error
