"""Sets that are too large for memory, decoded once into a file that is mapped, in the folder that CONVOLAB_DATA moves.

cache/images/KEY/rows.bin       all images, uint8, those of training first
cache/images/KEY/SPLIT.npy      of each split the labels, and the places of its images in the source
cache/images/KEY/about.json     the shape, the fingerprints, what could not be read, the notes

KEY is `source_digest`: images that were changed have another one. A folder is complete, or it is not there.
"""

import os
import shutil
from contextlib import closing, nullcontext, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from convolab.core.environment import cache_folder
from convolab.core.errors import LabError, require
from convolab.core.files import atomic_write, read_json, translate_write_errors, write_json
from convolab.core.text import format_bytes, pluralize
from convolab.core.types import MessageCallback
from convolab.data.dataset import FileRows, ImageDataset
from convolab.data.download import ProgressCallback
from convolab.data.image_source import (
    ImageSource,
    KeptImages,
    PassingFailure,
    is_gray,
    names_at,
    source_digest,
    to_splits,
)
from convolab.data.memmap import map_rows
from convolab.data.splits import DatasetSplits

CACHE_FORMAT = 2
CACHE_NAME = "images"
MAX_DATASET_BYTES = 100_000_000_000  # of a set, decoded, on the disk
LIMIT_VARIABLE = "CONVOLAB_MAX_BYTES"  # lifts it
ROWS, ABOUT = "rows.bin", "about.json"
UNREADABLE_KEPT = 1_000  # files of which about.json says why: with millions it would be too large to be read


def read_through_cache(
    source: ImageSource, on_progress: ProgressCallback | None, on_message: MessageCallback | None
) -> DatasetSplits:
    """The splits of a source, decoded by this call or by an earlier one; see `image_source.decode_source`."""
    limit = size_limit()
    require(
        source.num_bytes <= limit,
        f"{describe_size(source)}, more than {format_bytes(limit)}: give a smaller data.image_size or fewer images, or "
        f"lift the limit (environment variable {LIMIT_VARIABLE}, in bytes)",
    )
    cache = cache_folder(CACHE_NAME)
    key = f"{CACHE_FORMAT}-{source_digest(source)[:40]}"
    with translate_write_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        if not is_complete(cache / key):
            with FileLock(cache / f".{key}.lock"):
                delete_leftovers(cache, key)
                if not is_complete(cache / key):  # another process has not decoded them meanwhile
                    decode_into(source, cache, key, on_progress, on_message)
    return read_cached(source, cache / key)


def is_complete(folder: Path) -> bool:
    """Whether all images are decoded that can be: of some the reading may have failed in passing."""
    return (folder / ABOUT).exists() and not read_json(folder / ABOUT).get("try_again")


def size_limit() -> int:
    value = os.environ.get(LIMIT_VARIABLE) or str(MAX_DATASET_BYTES)
    require(value.isdecimal() and len(value) < 19, f"{LIMIT_VARIABLE} is {value[:40]!r}: give a number of bytes")
    return int(value)


def describe_size(source: ImageSource) -> str:
    height, width = source.size
    return f"{len(source.labels):,} images of {height} x {width} take {format_bytes(source.num_bytes)}"


def decode_into(
    source: ImageSource,
    cache: Path,
    key: str,
    on_progress: ProgressCallback | None,
    on_message: MessageCallback | None,
) -> None:
    """Decode into a new folder, and give it its name once it is complete."""
    free = shutil.disk_usage(cache).free
    require(
        source.num_bytes < free,
        f"{describe_size(source)} on the disk, and {format_bytes(free)} are free in {cache}: free some, let CONVOLAB_DATA "
        "name a folder on a larger disk, or give a smaller data.image_size",
    )
    if on_message:
        on_message(f"{describe_size(source)} on the disk, once: in {cache}, which `convolab data clean` deletes")
    part = cache / f".{key}.part"
    part.mkdir()
    try:
        with (part / ROWS).open("w+b", buffering=0) as file:
            reasons, channels = write_rows(source, file, on_progress)
            shape = (channels, *source.size)
            kept = KeptImages.of(source, reasons)
            order = torch.cat(list(kept.indices.values())).numpy()
            notes: tuple[str, ...] = ()
            if len(order):
                images = map_rows(FileRows(part / ROWS, 0), (len(order), *shape))
                notes = kept.notes(source, images)
                del images
            permute_rows(file, order, channels * source.size[0] * source.size[1])
            os.fsync(file.fileno())
        about: dict[str, Any] = {"format": CACHE_FORMAT, "source": source.where, "shape": shape, "splits": {}}
        if (more := len(kept.unreadable) - UNREADABLE_KEPT) > 0:
            notes = (*notes, f"{pluralize(more, 'more file')} could not be read")
        about |= {"unreadable": kept.unreadable[:UNREADABLE_KEPT], "notes": notes}
        about |= {"try_again": any(isinstance(reason, PassingFailure) for reason in reasons)}
        offset = 0
        for split, indices in kept.indices.items():
            with atomic_write(part / f"{split}.npy") as path:
                np.save(path, torch.stack([kept.labels[indices], kept.positions[indices]]).numpy())
            dataset = map_split(source, part, split, (len(indices), *shape), offset)
            about["splits"][split] = {"count": len(indices), "offset": offset, "sha256": dataset.fingerprint}
            offset += dataset.images.nbytes
        write_json(part / ABOUT, about)
        require(
            f"{CACHE_FORMAT}-{source_digest(source)[:40]}" == key,
            f"the images of {source.where} changed while they were decoded: try again when they stay as they are",
        )
        shutil.rmtree(cache / key, ignore_errors=True)  # which lacks what could not be read in passing
        os.replace(part, cache / key)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    delete_outdated(cache, key, source)


def write_rows(source: ImageSource, file: FileIO, on_progress: ProgressCallback | None) -> tuple[list[str], int]:
    """Append every readable image; for each image why it is unreadable, or "", and the number of channels."""
    reasons: list[str] = []
    height, width = source.size
    all_gray = True
    with closing(source.decode()) as decoded:
        for image in decoded:
            if isinstance(image, str):
                reasons.append(image)
            else:
                reasons.append("")
                all_gray = all_gray and is_gray(image)
                write_all(file, image.expand(3, height, width).contiguous().numpy())
            if on_progress:
                on_progress(len(reasons), len(source.labels))
    if not all_gray:
        return reasons, 3
    num_pixels = height * width
    count = reasons.count("")
    for index in range(1, count):  # the first channel of each, one after another
        os.pwrite(file.fileno(), os.pread(file.fileno(), num_pixels, 3 * index * num_pixels), index * num_pixels)
    file.truncate(count * num_pixels)
    return reasons, 1


def write_all(file: FileIO, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    """Write every byte: a file without a buffer may take fewer at once."""
    remaining = array.data.cast("B")
    while remaining:
        remaining = remaining[file.write(remaining) :]


def permute_rows(file: FileIO, order: np.ndarray[Any, np.dtype[np.int64]], row_bytes: int) -> None:
    """Row i becomes what row order[i] was, in place: each cycle of the permutation moves round, a row at a time."""
    number = file.fileno()
    is_done = order == np.arange(len(order))
    for start in range(len(order)):
        if is_done[start]:
            continue
        first, index = os.pread(number, row_bytes, start * row_bytes), start
        while order[index] != start:
            os.pwrite(number, os.pread(number, row_bytes, int(order[index]) * row_bytes), index * row_bytes)
            is_done[index] = True
            index = int(order[index])
        os.pwrite(number, first, index * row_bytes)
        is_done[index] = True


def map_split(source: ImageSource, folder: Path, split: str, shape: tuple[int, ...], offset: int) -> ImageDataset:
    rows = FileRows(folder / ROWS, offset)
    labels, positions = torch.from_numpy(np.load(folder / f"{split}.npy", allow_pickle=False)).unbind()
    names = names_at(source, positions)
    return ImageDataset(map_rows(rows, shape), labels, source.classes, source.name, names).with_file_rows(rows)


def read_cached(source: ImageSource, folder: Path) -> DatasetSplits:
    """The splits in a complete folder of the cache."""
    about = read_json(folder / ABOUT)
    try:
        datasets = {
            split: map_split(
                source, folder, split, (entry["count"], *about["shape"]), entry["offset"]
            ).with_fingerprint(entry["sha256"])
            for split, entry in about["splits"].items()
        }
        return to_splits(datasets, tuple(about["unreadable"]), tuple(about["notes"]))
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise LabError(f"{folder} is damaged ({error}): delete it, and the images are decoded again") from error


def delete_leftovers(cache: Path, key: str) -> None:
    """Delete what killed decodings left. Holds the lock of `key`; of others, those that nobody is at work on."""
    for part in cache.glob(".*.part"):
        other = part.name[1:].removesuffix(".part")
        with suppress(Timeout), FileLock(cache / f".{other}.lock", timeout=0) if other != key else nullcontext():
            shutil.rmtree(part, ignore_errors=True)


def delete_outdated(cache: Path, key: str, source: ImageSource) -> None:
    """Delete what was decoded at this size from the same folder or file before it changed.

    A process that has it mapped keeps it.
    """
    for about_file in cache.glob(f"*/{ABOUT}"):
        with suppress(LabError, LookupError, TypeError):
            about = read_json(about_file)
            is_same = about["source"] == source.where and tuple(about["shape"][1:]) == source.size
            if is_same and about_file.parent.name != key:
                shutil.rmtree(about_file.parent, ignore_errors=True)
