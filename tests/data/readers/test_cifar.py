"""CIFAR files: the real ones, small ones, damaged ones and malicious ones."""

import os
import pickle
import time
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_sets import cifar10_files, cifar_batch, write_all

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import channel_mean_std
from convolab.data.readers import pickled_arrays
from convolab.data.readers.cifar import read_cifar10, read_cifar100
from convolab.data.readers.pickled_arrays import read_pickle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_all(tmp_path / "cifar-10-batches-py", cifar10_files())


@pytest.mark.slow
def test_the_real_cifar10_is_read_as_published(cifar10_dir):
    started = time.process_time()
    train, test, unreadable = load("cifar10", cifar10_dir, download=False)
    assert time.process_time() - started < 3  # about 0.6 s; the slack is for slower machines
    assert train.images.shape == (50_000, 3, 32, 32)
    assert test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(train.labels).tolist() == [5000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert (train.labels[0], test.labels[0]) == (6, 3)
    assert train.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert unreadable == ()
    mean, std = channel_mean_std(train)  # numbers in many published recipes
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-4)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=1e-4)


def test_images_are_in_the_order_of_the_files_and_their_rows(folder):
    train, _ = read_cifar10(folder)
    third = pickle.loads((folder / "data_batch_3").read_bytes())
    assert np.array_equal(train.images[40:60].numpy(), third["data"].reshape(20, 3, 32, 32))
    assert train.labels[40:60].tolist() == third["labels"]
    assert train.classes[3] == "class 3"


def test_cifar100_has_its_fine_labels(tmp_path):
    batch = cifar_batch(200, 100, "fine_labels") | {"coarse_labels": [0] * 200}
    meta = {
        "fine_label_names": [f"fine {i}" for i in range(100)],
        "coarse_label_names": [f"coarse {i}" for i in range(20)],
    }
    write_all(tmp_path, {"train": pickle.dumps(batch), "test": pickle.dumps(batch), "meta": pickle.dumps(meta)})
    train, test = read_cifar100(tmp_path)
    assert train.classes[42] == "fine 42"
    assert train.labels.tolist() == test.labels.tolist() == [i % 100 for i in range(200)]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_pickled_with_other_protocols_are_read_too(folder, protocol):
    (folder / "test_batch").write_bytes(pickle.dumps(cifar_batch(7, 10), protocol))
    assert len(read_cifar10(folder)[1]) == 7


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/created-by-a-pickle",)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Malicious(), f"{os.system.__module__}.system"),
        ({"data": Malicious(), "labels": []}, "system"),
        (OrderedDict(data=1), "collections.OrderedDict"),
    ],
)
def test_a_pickle_that_names_any_other_function_is_refused_and_not_run(folder, content, name):
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(LabError, match=rf"data_batch_2 tries to load .*{name}: not a CIFAR file"):
        read_cifar10(folder)
    assert not Path("/tmp/created-by-a-pickle").exists()


def doubled(times: int) -> bytes:
    """A tuple of a tuple of a tuple ..., each twice the same: 2 ** times to whoever counts or hashes it."""
    return b")" + b"q\0h\0\x86" * times


BOMBS = {
    "a key that is hashed for years": b"\x80\x02}" + doubled(40) + b"K\1s.",
    "labels that are counted for years": b"\x80\x02}U\4dataK\1sU\6labels" + doubled(40) + b"s.",
    "a type that is parsed for years": b"\x80\x02cnumpy\ndtype\n" + doubled(40) + b"R.",
    "an array of terabytes": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85R.",
    "a memo of gigabytes": b"\x80\x02}r\xff\xff\xff\x7f0.",
    "a string of terabytes": b"\x80\x04\x8e" + (2**42).to_bytes(8, "little") + b".",
    "bytes that are set aside": b"\x80\x05\x96" + (2**36).to_bytes(8, "little") + b".",
    "a number of a million digits": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
    "a long number": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\x7f" * 1_000_000 + b".",
    "text that is converted again and again": (
        b"\x80\x02X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\0U\6latin1q\1"
        b"c_codecs\nencode\nq\2" + b"h\2h\0h\1\x86R" * 1_000 + b"."
    ),
    "nested lists": b"\x80\x02" + b"]" * 4000 + b"a" * 3999 + b".",
    "more entries than any file has": b"\x80\x02" + b"(" * 20_000 + b".",
    "a list that holds itself": b"\x80\x02}U\4dataK\1sU\6labels]q\0h\0as.",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOMBS)
def test_a_pickle_that_would_never_end_or_fill_the_memory_is_refused_in_seconds(folder, kind, monkeypatch):
    monkeypatch.setattr(pickled_arrays, "MAX_OPCODES", 10_000)  # shape checks take a thousand times as long as these
    (folder / "test_batch").write_bytes(BOMBS[kind])
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(LabError, match="test_batch") as caught:
            read_cifar10(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 10
    assert peak < 30e6
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_file_larger_than_any_of_cifar_is_not_read(folder):
    with (folder / "test_batch").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(LabError, match=r"test_batch is 10\.0 GB, more than 200\.0 MB"):
        read_cifar10(folder)


@pytest.mark.parametrize("protocol", range(6))
def test_what_python_pickles_is_read_as_it_was(tmp_path, protocol):
    value = {
        "numbers": [0, 1, -1, 255, 256, 65_536, -70_000, 2**31, 10**12, True, False, None],
        "names": ["", "cat", "été", b"cat\n\\", b"x" * 300, ("a", "b"), ("a", "b", "c", "d"), (), {b"k": {}}],
    }
    path = tmp_path / "any"
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_with_its_shape_type_and_order(tmp_path, order):
    array = np.asarray(np.arange(2 * 3000, dtype=np.uint16).reshape(2, 3000), order=order)
    (tmp_path / "any").write_bytes(pickle.dumps(array, 2))
    assert np.array_equal(read_pickle(tmp_path / "any"), array)


def test_a_handwritten_pickle_cannot_name_os_system(folder):
    (folder / "batches.meta").write_bytes(b"cos\nsystem\n(S'touch /tmp/created-by-a-pickle'\ntR.")
    with pytest.raises(LabError, match=r"batches\.meta tries to load os\.system: not a CIFAR file"):
        read_cifar10(folder)
    assert not Path("/tmp/created-by-a-pickle").exists()


def test_encoded_bytes_are_not_decoded_by_another_codec(folder):
    (folder / "test_batch").write_bytes(b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.")
    with pytest.raises(LabError, match="test_batch"):
        read_cifar10(folder)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_named_in_the_error(folder, fraction):
    path = folder / "data_batch_4"
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(LabError, match="data_batch_4 is damaged"):
        read_cifar10(folder)


@pytest.mark.slow
def test_no_changed_byte_gives_a_traceback(folder):
    path = folder / "data_batch_1"
    content = path.read_bytes()
    messages, edges = [], [*range(200), *range(len(content) - 200, len(content))]  # a changed pixel is not an error
    for index in edges:
        changed = bytearray(content)
        changed[index] ^= 0x15
        path.write_bytes(changed)
        try:
            assert len(read_cifar10(folder)[0]) == 100
        except LabError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(path) in line and "\n" not in line and len(line) < 500 for line in messages)


GOOD_BATCH = cifar_batch(20, 10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({"labels": GOOD_BATCH["labels"]}, r"has no 'data' \(it has labels\)"),
        ({"data": GOOD_BATCH["data"]}, r"has no 'labels' \(it has data\)"),
        ({}, "it has nothing"),
        (GOOD_BATCH | {"data": GOOD_BATCH["data"][:, :-1]}, r"'data' is uint8 \[20, 3071\], not uint8 \[n, 3072\]"),
        (GOOD_BATCH | {"data": GOOD_BATCH["data"].astype(np.float32)}, r"'data' is float32 \[20, 3072\]"),
        (GOOD_BATCH | {"data": b"pixels"}, "'data' is a bytes"),
        (GOOD_BATCH | {"labels": GOOD_BATCH["labels"][:-1]}, "19 labels for 20 images"),
        (GOOD_BATCH | {"labels": [10, *GOOD_BATCH["labels"][1:]]}, "run from 0 to 10, but there are 10 classes"),
        (GOOD_BATCH | {"labels": [-1, *GOOD_BATCH["labels"][1:]]}, "run from -1 to 9"),
        (GOOD_BATCH | {"labels": ["cat"] * 20}, "'labels' is not a list of integers"),
        (cifar_batch(19, 10), "holds 19 images and data_batch_1 holds 20"),
    ],
)
def test_the_error_about_wrong_content_names_the_file_and_the_problem(folder, content, reason):
    (folder / "data_batch_5").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(LabError, match=f"data_batch_5.*{reason}"):
        read_cifar10(folder)


def test_a_missing_file_is_named_in_the_error(folder):
    (folder / "data_batch_3").unlink()
    with pytest.raises(LabError, match="data_batch_3 is missing"):
        read_cifar10(folder)
