"""CIFAR files: the real ones, small ones, damaged ones and malicious ones."""

import os
import pickle
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_sets import cifar10_files, cifar_batch, write_all

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import channel_mean_std
from convolab.data.readers.cifar import read_cifar10, read_cifar100


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


def test_rows_become_images_in_the_order_of_the_files(folder):
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
def test_files_pickled_again_are_read_too(folder, protocol):
    (folder / "test_batch").write_bytes(pickle.dumps(cifar_batch(7, 10), protocol))
    assert len(read_cifar10(folder)[1]) == 7


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/pwned-by-a-pickle",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (Malicious(), f"{os.system.__module__}.system"),
        ({"data": Malicious(), "labels": []}, "system"),
        (OrderedDict(data=1), "collections.OrderedDict"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(folder, content, named):
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(LabError, match=rf"data_batch_2 tries to load .*{named}: not a CIFAR file"):
        read_cifar10(folder)
    assert not Path("/tmp/pwned-by-a-pickle").exists()


def test_a_pickle_written_by_hand_cannot_name_os_system(folder):
    (folder / "batches.meta").write_bytes(b"cos\nsystem\n(S'touch /tmp/pwned-by-a-pickle'\ntR.")
    with pytest.raises(LabError, match=r"batches\.meta tries to load os\.system: not a CIFAR file"):
        read_cifar10(folder)
    assert not Path("/tmp/pwned-by-a-pickle").exists()


def test_encoded_bytes_are_decoded_by_no_other_codec(folder):
    (folder / "test_batch").write_bytes(b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.")
    with pytest.raises(LabError, match="test_batch"):
        read_cifar10(folder)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_named(folder, fraction):
    path = folder / "data_batch_4"
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(LabError, match="data_batch_4 is damaged"):
        read_cifar10(folder)


@pytest.mark.slow
def test_no_altered_byte_gives_a_traceback(folder):
    path = folder / "data_batch_1"
    content = path.read_bytes()
    messages, edges = [], [*range(200), *range(len(content) - 200, len(content))]  # the pixels between may be anything
    for place in edges:
        altered = bytearray(content)
        altered[place] ^= 0x15
        path.write_bytes(altered)
        try:
            assert len(read_cifar10(folder)[0]) == 100
        except LabError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(path) in line and "\n" not in line and len(line) < 500 for line in messages)


GOOD = cifar_batch(20, 10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({"labels": GOOD["labels"]}, r"has no 'data' \(it has labels\)"),
        ({"data": GOOD["data"]}, r"has no 'labels' \(it has data\)"),
        ({}, "it has nothing"),
        (GOOD | {"data": GOOD["data"][:, :-1]}, r"'data' is uint8 \[20, 3071\], not uint8 \[n, 3072\]"),
        (GOOD | {"data": GOOD["data"].astype(np.float32)}, r"'data' is float32 \[20, 3072\]"),
        (GOOD | {"data": b"pixels"}, "'data' is a bytes"),
        (GOOD | {"labels": GOOD["labels"][:-1]}, "19 labels for 20 images"),
        (GOOD | {"labels": [10, *GOOD["labels"][1:]]}, "run from 0 to 10, but there are 10 classes"),
        (GOOD | {"labels": [-1, *GOOD["labels"][1:]]}, "run from -1 to 9"),
        (GOOD | {"labels": ["cat"] * 20}, "'labels' is not a list of integers"),
        (cifar_batch(19, 10), "holds 19 images and data_batch_1 holds 20"),
    ],
)
def test_a_file_of_the_wrong_content_says_which_and_what(folder, content, reason):
    (folder / "data_batch_5").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(LabError, match=f"data_batch_5.*{reason}"):
        read_cifar10(folder)


def test_a_missing_file_is_named(folder):
    (folder / "data_batch_3").unlink()
    with pytest.raises(LabError, match="data_batch_3 is missing"):
        read_cifar10(folder)
