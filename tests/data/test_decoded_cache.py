"""Sets that are larger than memory are decoded once, into a file that is mapped."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convolab
from convolab.core.errors import LabError
from convolab.data import decoded_cache, image_io, image_source
from convolab.data.catalog import load
from convolab.data.dataset import FileRows
from convolab.data.memmap import map_rows, read_memmap, write_memmap
from convolab.data.splits import DatasetSplits
from convolab.data.storage import clean, list_stored
from convolab.training.callbacks import Callbacks
from convolab.training.recipe import Recipe
from convolab.training.run import Run


def write_set(folder: Path, *, split_names: tuple[str, ...] = ("",), gray: bool = False, count: int = 6) -> Path:
    """Noise in two classes; a file in each that cannot be read, and a copy."""
    draw = np.random.default_rng(0)
    for split in split_names:
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (20, 24) if gray else (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
            (folder / split / name / "3a.png").write_bytes(b"no image")
            shutil.copy(folder / split / "cat/1.png", folder / split / name / "copy.png")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set counts as larger than memory, and nobody waits for a file system's clock."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(image_source, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr(image_source, "SETTLING_SECONDS", 0.0)
    return tmp_path / "root/cache/images"


def in_memory(name: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> DatasetSplits:
    with monkeypatch.context() as patch:
        patch.setattr(image_source, "MAX_MEMORY_BYTES", 10**9)
        return load(name, **options)


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


@pytest.mark.slow
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("split_names", [("",), ("train", "val", "test"), ("test", "train")])
def test_a_mapped_set_is_bit_for_bit_the_one_in_memory(tmp_path, cache, monkeypatch, gray, split_names):
    name = f"folder:{write_set(tmp_path / 'set', split_names=split_names, gray=gray)}"
    expected = in_memory(name, monkeypatch, image_size=16)
    first = load(name, image_size=16)
    again = load(name, image_size=16)
    for splits in (first, again):
        assert str(splits) == str(expected)
        assert splits.fingerprints == expected.fingerprints
        for split, dataset in splits.by_name.items():
            assert torch.equal(dataset.images, expected.by_name[split].images)
            assert torch.equal(dataset.labels, expected.by_name[split].labels)
            assert dataset.names == expected.by_name[split].names
            assert dataset.shape[0] == (1 if gray else 3)
            assert dataset.with_fingerprint("").fingerprint == ""
            del vars(dataset)["fingerprint"]
            assert dataset.fingerprint == expected.by_name[split].fingerprint  # computed from the mapped bytes
    assert len(expected.notes) > 0
    assert len(expected.unreadable) == 2 * len(split_names)


@pytest.mark.slow
def test_a_set_is_decoded_once_for_each_size(tmp_path, cache):
    name = f"folder:{write_set(tmp_path / 'set')}"
    calls, messages = [], []
    for _ in range(2):
        for size in (8, 512):
            load(name, image_size=size, on_progress=lambda *done: calls.append(done), on_message=messages.append)
    assert len(calls) == 2 * 16
    assert messages == [
        f"16 images of 8 x 8 take 3.1 kB on the disk, once: in {cache}, which `convolab data clean` deletes",
        f"16 images of 512 x 512 take 12.6 MB on the disk, once: in {cache}, which `convolab data clean` deletes",
    ]
    assert len(entries(cache)) == 2


@pytest.mark.slow
def test_a_changed_image_is_never_served_from_the_cache_also_if_its_size_and_time_are_the_same(tmp_path, cache):
    folder = write_set(tmp_path / "set")
    path = folder / "cat/0.bmp"
    Image.new("RGB", (20, 20), "red").save(path)
    before, size = load(f"folder:{folder}", image_size=8), path.stat().st_size
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    time.sleep(0.02)  # longer than a tick of the kernel's clock
    Image.new("RGB", (20, 20), "blue").save(path)
    os.utime(path, ns=times)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, times[1])
    after = load(f"folder:{folder}", image_size=8)
    assert before.fingerprints != after.fingerprints
    assert len(entries(cache)) == 1  # what was decoded before the change is deleted
    assert before.train.images.sum() > 0  # and stays readable for who has it mapped


@pytest.mark.slow
@pytest.mark.parametrize("change", ["rename", "add", "delete", "replace"])
def test_a_changed_folder_is_decoded_again(tmp_path, cache, change):
    folder = write_set(tmp_path / "set")
    before = load(f"folder:{folder}", image_size=8)
    if change == "rename":
        (folder / "cat/0.png").rename(folder / "dog/new.png")
    elif change == "add":
        shutil.copy(folder / "cat/0.png", folder / "dog/new.png")
    elif change == "delete":
        (folder / "cat/0.png").unlink()
    else:
        shutil.copy2(folder / "cat/0.png", tmp_path / "other.png")
        os.replace(tmp_path / "other.png", folder / "cat/1.png")
    assert load(f"folder:{folder}", image_size=8).fingerprints != before.fingerprints


@pytest.mark.slow
def test_a_file_that_was_just_written_is_waited_for(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(image_source, "SETTLING_SECONDS", 0.5)
    folder = write_set(tmp_path / "set")
    start = time.time()
    load(f"folder:{folder}", image_size=8)
    assert time.time() - start > 0.4


def test_images_that_change_while_they_are_decoded_are_refused_and_nothing_is_left(tmp_path, cache):
    folder = write_set(tmp_path / "set")

    def change(done: int, total: int | None) -> None:
        Image.new("RGB", (9, 9)).save(folder / "cat/0.png")

    with pytest.raises(LabError, match=r"changed while they were decoded: try again"):
        load(f"folder:{folder}", image_size=8, on_progress=change)
    assert entries(cache) == []


@pytest.mark.parametrize("exception", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_decoding_leaves_nothing(tmp_path, cache, exception):
    folder = write_set(tmp_path / "set")

    def stop(done: int, total: int | None) -> None:
        raise exception

    with pytest.raises(exception):
        load(f"folder:{folder}", image_size=8, on_progress=stop)
    assert entries(cache) == []


CHILD = """
import os, sys, time
from convolab.data import image_source
from convolab.data.catalog import load
image_source.MAX_MEMORY_BYTES = 0
kill_at = int(sys.argv[2])
def progress(done, total):
    if done == kill_at: os.kill(os.getpid(), 9)
    time.sleep(0.02)
print(load(sys.argv[1], image_size=8, on_progress=progress).fingerprints["train_sha256"])
"""


@pytest.mark.slow
def test_a_killed_decoding_does_not_hinder_the_next(tmp_path, cache):
    folder = write_set(tmp_path / "set")
    assert subprocess.run([sys.executable, "-c", CHILD, f"folder:{folder}", "5"], check=False).returncode == -9
    (left,) = (path for path in cache.iterdir() if path.name.endswith(".part"))
    foreign = cache / ".1-other.part"
    shutil.copytree(left, foreign)  # of another set, which nobody tries again
    splits = load(f"folder:{folder}", image_size=8)
    assert len(splits.train) > 0
    assert not any(path.name.endswith(".part") for path in cache.iterdir())


@pytest.mark.slow
def test_two_processes_at_once_decode_once_and_get_the_same(tmp_path, cache):
    folder = write_set(tmp_path / "set")
    arguments = [sys.executable, "-c", CHILD, f"folder:{folder}", "-1"]
    children = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {child.communicate()[0] for child in children}
    assert outputs == {load(f"folder:{folder}", image_size=8).train.fingerprint + "\n"}
    assert len(entries(cache)) == 1


def test_a_set_beyond_the_limit_or_the_free_disk_is_refused_before_it_is_decoded(tmp_path, cache, monkeypatch):
    name = f"folder:{write_set(tmp_path / 'set')}"
    monkeypatch.setenv("CONVOLAB_MAX_BYTES", "3000")
    with pytest.raises(LabError, match=r"16 images of 8 x 8 take 3\.1 kB, more than 3\.0 kB: .*CONVOLAB_MAX_BYTES"):
        load(name, image_size=8)
    monkeypatch.setenv("CONVOLAB_MAX_BYTES", "a lot")
    with pytest.raises(LabError, match="CONVOLAB_MAX_BYTES is 'a lot': give a number of bytes"):
        load(name, image_size=8)
    monkeypatch.delenv("CONVOLAB_MAX_BYTES")
    usage = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(LabError, match=r"take 3\.1 kB on the disk, and 2\.0 kB are free in .*CONVOLAB_DATA"):
        load(name, image_size=8)
    assert not cache.exists() or entries(cache) == []


def test_a_class_without_readable_images_is_refused_and_nothing_is_left(tmp_path, cache):
    folder = write_set(tmp_path / "set")
    (folder / "bird").mkdir()
    (folder / "bird/a.png").write_bytes(b"")
    with pytest.raises(LabError, match="bird has no readable image"):
        load(f"folder:{folder}", image_size=8)
    assert entries(cache) == []


@pytest.mark.slow
def test_data_clean_deletes_the_decoded_images_and_who_has_them_mapped_keeps_them(tmp_path, cache):
    name = f"folder:{write_set(tmp_path / 'set')}"
    splits = load(name, image_size=8)
    (item,) = list_stored()
    assert (item.name, item.kind) == ("images", "cache")
    assert item.num_bytes > 14 * 3 * 64
    before = splits.train.images.clone()
    clean(["images"])
    assert torch.equal(splits.train.images, before)
    assert load(name, image_size=8).fingerprints == splits.fingerprints


def test_a_damaged_cache_is_one_line_that_says_what_to_delete(tmp_path, cache):
    name = f"folder:{write_set(tmp_path / 'set')}"
    load(name, image_size=8)
    rows = cache / entries(cache)[0] / "rows.bin"
    rows.write_bytes(rows.read_bytes()[:50])
    with pytest.raises(LabError, match=r"rows\.bin"):
        load(name, image_size=8)


def test_a_process_can_change_mapped_images_and_the_file_stays(tmp_path, cache):
    name = f"folder:{write_set(tmp_path / 'set')}"
    splits = load(name, image_size=8)
    before = splits.train.images.clone()
    splits.train.images.zero_()
    assert torch.equal(load(name, image_size=8).train.images, before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other rules for large maps")
def test_a_file_larger_than_memory_is_mapped(tmp_path):
    path = tmp_path / "rows"
    count = 2**40 // (3 * 512 * 512)
    with path.open("wb") as file:
        file.truncate(count * 3 * 512 * 512)  # 1 TiB, and no block of it is on the disk
    images = map_rows(FileRows(path, 0), (count, 3, 512, 512))
    assert int(images[-1].sum()) == 0


def test_a_study_links_mapped_images_and_copies_nothing(tmp_path, cache):
    splits = load(f"folder:{write_set(tmp_path / 'set')}", image_size=8)
    write_memmap(splits, tmp_path / "linked")
    rows = cache / entries(cache)[0] / "rows.bin"
    assert (tmp_path / "linked/train-images.bin").stat().st_ino == rows.stat().st_ino
    clean(["images"])  # the other name stays
    linked = read_memmap(tmp_path / "linked")
    assert linked.fingerprints == splits.fingerprints
    assert torch.equal(linked.test.images, splits.test.images)


@pytest.mark.slow
def test_a_run_on_mapped_images_has_the_bits_of_one_in_memory(tmp_path, cache, monkeypatch):
    name = f"folder:{write_set(tmp_path / 'set', count=8)}"
    recipe = Recipe.from_dict(
        {
            "data": {"name": name, "image_size": 8, "augment": ["flip"]},
            "model": {"name": "shallow_net"},
            "training": {"epochs": 2, "batch_size": 4},
        }
    )
    mapped = Run.start(recipe, load(name, image_size=8), tmp_path / "a")
    memory = Run.start(recipe, in_memory(name, monkeypatch, image_size=8), tmp_path / "b")
    assert (tmp_path / "a/last.safetensors").read_bytes() == (tmp_path / "b/last.safetensors").read_bytes()
    assert mapped.summary["data"] == memory.summary["data"]
    assert mapped.test().correct == memory.test(splits=in_memory(name, monkeypatch, image_size=8)).correct


class FailsOnce:
    """Reads files, and the first time one of them not."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self.error, self.has_failed = name, error, False

    def __call__(self, path: Path | str, *args: object) -> torch.Tensor:
        if Path(path).name == self.name and not self.has_failed:
            self.has_failed = True
            try:
                raise self.error
            except type(self.error) as error:
                raise LabError(f"{path}: cannot be read") from error
        return image_io.read_image_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_an_image_that_could_not_be_read_in_passing_is_read_the_next_time(tmp_path, cache, monkeypatch, error):
    folder = write_set(tmp_path / "set")
    monkeypatch.setattr(image_source, "read_image_file", FailsOnce("0.png", error))
    first = load(f"folder:{folder}", image_size=8)
    assert "cat/0.png: cannot be read" in first.unreadable
    before = first.train.images.clone()
    second = load(f"folder:{folder}", image_size=8)
    assert len(second.train) + len(second.test) == len(first.train) + len(first.test) + 1
    assert torch.equal(first.train.images, before)  # who has the first one mapped keeps it
    calls = []
    load(f"folder:{folder}", image_size=8, on_progress=lambda *done: calls.append(done))
    assert calls == []
    assert len(entries(cache)) == 1


def test_of_very_many_unreadable_files_some_reasons_are_kept_and_the_others_are_counted(tmp_path, cache, monkeypatch):
    folder = write_set(tmp_path / "set")
    monkeypatch.setattr(decoded_cache, "UNREADABLE_KEPT", 1)
    for _ in range(2):  # as it is decoded, and as it is read again
        splits = load(f"folder:{folder}", image_size=8)
        assert [line.partition(":")[0] for line in splits.unreadable] == ["cat/3a.png"]
        assert splits.notes[-1] == "1 more file could not be read"


@pytest.mark.slow
def test_a_photo_beyond_the_limit_is_read_once_the_limit_is_lifted(tmp_path, cache, monkeypatch):
    folder = write_set(tmp_path / "set")
    Image.new("RGB", (50, 41)).save(folder / "cat/large.png")
    for limit, is_read in ((2000, False), (2050, True)):
        monkeypatch.setattr(image_io, "MAX_IMAGE_PIXELS", limit)
        monkeypatch.setattr(image_source, "MAX_IMAGE_PIXELS", limit)
        unreadable = load(f"folder:{folder}", image_size=8).unreadable
        assert any(line.startswith("cat/large.png: 50 x 41") for line in unreadable) != is_read


def test_an_image_that_may_never_be_read_is_remembered(tmp_path, cache, monkeypatch):
    folder = write_set(tmp_path / "set")
    denied = FailsOnce("0.png", PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(image_source, "read_image_file", denied)
    first, second = (load(f"folder:{folder}", image_size=8) for _ in range(2))
    assert first.unreadable == second.unreadable
    assert "cat/0.png: cannot be read" in first.unreadable


@pytest.mark.slow
def test_every_call_that_reads_the_images_tells_how_much_it_decodes(tmp_path, cache):
    name = f"folder:{write_set(tmp_path / 'set', count=8)}"
    messages = []

    class Messages(Callbacks):
        def on_message(self, message: str) -> None:
            messages.append(message)

    def decode_again() -> bool:
        clean(["images"])
        is_known = any("on the disk, once" in message for message in messages)
        messages.clear()
        return is_known

    options = {"epochs": 1, "batch_size": 4, "overrides": {"data.image_size": 8}}
    run = convolab.train("shallow_net", name, out=tmp_path / "run", callbacks=Messages(), **options)
    assert decode_again()
    run.load_splits(on_message=messages.append)
    assert decode_again()
    run.extend(2, tmp_path / "more", callbacks=Messages())
    assert decode_again()
    run.test(on_message=messages.append)
    assert decode_again()
