"""Datasets by name: where they are searched, how they are downloaded, and the errors."""

import gzip
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from support.small_sets import archive, cifar10_files, fashion_files, idx, write_all

from convolab.core.errors import LabError
from convolab.data.catalog import DATASETS, default_augmentation, download_dataset, load

ARCHIVE = "cifar-10-python.tar.gz"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: all requests go to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_the_catalog_is_imported_without_torch_numpy_or_scikit_learn():
    code = (
        "import sys; import convolab.data.catalog;"
        "print([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.slow
def test_digits_are_those_of_scikit_learn():
    train, test, _ = load("digits")
    bunch = load_digits()
    images_and_labels = Counter(
        (bytes(x.numpy()), int(y)) for split in (train, test) for x, y in zip(split.images, split.labels, strict=True)
    )
    expected = ((x.astype(int) * 255 + 8) // 16 for x in bunch.images)  # 0..16 to 0..255, rounded, in integers
    assert images_and_labels == Counter(
        (bytes(x.astype(np.uint8)), int(y)) for x, y in zip(expected, bunch.target, strict=True)
    )


def test_the_split_of_digits_is_stratified_and_always_the_same():
    train, test, _ = load("digits")
    total = torch.bincount(torch.cat([train.labels, test.labels]))
    assert torch.bincount(test.labels).tolist() == [round(0.2 * count) for count in total.tolist()]
    assert test.fingerprint[:16] == "83c1087e7e67913e"


def test_the_catalog_describes_digits_correctly():
    train, test, _ = load("digits")
    info = DATASETS["digits"]
    assert (info.shape, info.num_classes, info.num_train, info.num_test) == (
        train.shape,
        len(train.classes),
        len(train),
        len(test),
    )


@pytest.mark.slow
def test_the_catalog_describes_cifar10_correctly(cifar10_dir):
    train, test, _ = load("cifar10", cifar10_dir)
    info = DATASETS["cifar10"]
    assert (info.shape, info.num_classes, info.num_train, info.num_test) == (
        train.shape,
        len(train.classes),
        len(train),
        len(test),
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar01", "did you mean 'cifar10'"),
        ("mnist", "did you mean torchvision:MNIST@PATH"),
        ("folder", "did you mean 'folder:PATH'"),
        ("x", "known: cifar10, "),
    ],
)
def test_the_error_about_an_unknown_name_suggests_the_nearest(name, hint):
    for function in (load, download_dataset, default_augmentation):
        with pytest.raises(LabError, match=f"there is no dataset '{name}': {hint}"):
            function(name)


def test_the_error_about_a_folder_or_file_that_is_there_names_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pics").mkdir()
    (tmp_path / "a.npz").touch()
    for name, kind in (("pics", "folder"), ("a.npz", "npz")):
        with pytest.raises(LabError, match=f"did you mean {kind}:{name}, your own images"):
            load(name)


@pytest.mark.parametrize("name", ["digits", "folder:pets"])
def test_a_local_dataset_is_not_downloaded(name):
    with pytest.raises(LabError, match="nothing to download"):
        download_dataset(name)


@pytest.mark.slow
def test_cifar10_is_downloaded_extracted_and_read(published_cifar10_archive, tmp_path, server):
    calls = []
    train, test, _ = load("cifar10", tmp_path / "new", on_progress=lambda *progress: calls.append(progress))
    assert (len(train), len(test)) == (100, 20)
    assert calls[-1] == (len(published_cifar10_archive), len(published_cifar10_archive))
    assert [name for name in os.listdir(tmp_path / "new") if not name.startswith(".")] == ["cifar-10-batches-py"]
    load("cifar10", tmp_path / "new")
    assert len(server.ranges) == 1  # it was downloaded only once


@pytest.mark.slow
def test_simultaneous_downloads_request_the_file_once(published_cifar10_archive, tmp_path, server):
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: download_dataset("cifar10", tmp_path), range(4)))
    assert folders == [tmp_path / "cifar-10-batches-py"] * 4
    assert len(server.ranges) == 1


@pytest.mark.slow
def test_an_archive_that_the_user_put_there_is_extracted_and_kept(published_cifar10_archive, tmp_path, server):
    write_all(tmp_path, {ARCHIVE: published_cifar10_archive})
    assert len(load("cifar10", tmp_path, download=False).train) == 100
    assert (tmp_path / ARCHIVE).exists()
    assert server.ranges == []


def test_the_checksum_of_an_archive_that_the_user_put_there_is_checked(published_cifar10_archive, tmp_path):
    write_all(tmp_path, {ARCHIVE: published_cifar10_archive[:-1]})
    with pytest.raises(LabError, match=rf"{ARCHIVE} is not the file at http.* \(its sha256 differs\): delete it"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_an_extracted_folder_needs_no_checksum_and_may_be_the_data_folder_itself(tmp_path):
    folder = write_all(tmp_path / "cifar-10-batches-py", cifar10_files())
    moved = write_all(tmp_path / "my-cifar", cifar10_files())
    for root in (tmp_path, folder, moved):
        assert len(load("cifar10", root, download=False).train) == 100


def test_the_default_folder_is_that_of_the_environment_or_the_cache(tmp_path, monkeypatch):
    write_all(tmp_path / "data" / "cifar-10-batches-py", cifar10_files())
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    assert download_dataset("cifar10") == tmp_path / "data" / "cifar-10-batches-py"
    monkeypatch.delenv("CONVOLAB_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LabError, match=f"cifar10 is not in {tmp_path}/.cache/convolab: "):
        load("cifar10", download=False)


@pytest.mark.slow
def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(offline, tmp_path):
    for function in (load, download_dataset):
        with pytest.raises(LabError) as caught:
            function("cifar10", tmp_path)
        url = DATASETS["cifar10"].downloads[0].url
        assert str(caught.value).endswith(f"or download {url} and put it in {tmp_path}")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_if_downloads_are_not_allowed_nothing_is_requested_or_written(published_cifar10_archive, tmp_path, server):
    with pytest.raises(
        LabError,
        match=f"cifar10 is not in {tmp_path}/new: download http.*{ARCHIVE} and put it in {tmp_path}/new, or allow",
    ):
        load("cifar10", tmp_path / "new", download=False)
    assert server.ranges == []
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_the_error_about_an_incomplete_folder_names_the_missing_file(published_cifar10_archive, tmp_path):
    write_all(tmp_path / "cifar-10-batches-py", cifar10_files())
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        with pytest.raises(
            LabError, match="cifar-10-batches-py is missing data_batch_3: add what is missing, or delete the folder"
        ):
            load("cifar10", root)


@pytest.mark.slow
def test_an_incomplete_archive_is_refused(publish_dataset, tmp_path):
    files = {
        f"cifar-10-batches-py/{name}": content for name, content in cifar10_files().items() if name != "test_batch"
    }
    publish_dataset("cifar10", {ARCHIVE: archive(files)})
    with pytest.raises(LabError, match="is missing test_batch, although it was just downloaded"):
        download_dataset("cifar10", tmp_path)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(published_cifar10_archive, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(LabError, match="cannot write"):
        download_dataset("cifar10", tmp_path)


def test_a_file_in_place_of_the_folder_is_refused(published_cifar10_archive, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LabError, match=r"cannot write .*file"):
        download_dataset("cifar10", tmp_path / "file")


def test_fashion_mnist_is_downloaded_and_read(publish_dataset, tmp_path):
    files = fashion_files()
    publish_dataset("fashion_mnist", files)
    train, test, _ = load("fashion_mnist", tmp_path)
    assert (train.images.shape, test.images.shape) == ((20, 1, 28, 28), (10, 1, 28, 28))
    assert train.labels.tolist() == [i % 10 for i in range(20)]
    assert (train.classes[0], train.classes[9]) == ("T-shirt/top", "Ankle boot")
    expected = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)  # like those of `fashion_files`
    assert np.array_equal(train.images[:, 0].numpy(), expected)


def test_only_the_missing_files_of_fashion_mnist_are_downloaded(publish_dataset, tmp_path, server):
    files = fashion_files()
    publish_dataset("fashion_mnist", files)
    write_all(tmp_path / "fashion-mnist", dict(list(files.items())[:3]))
    load("fashion_mnist", tmp_path)
    assert len(server.ranges) == 1


def test_if_fashion_mnist_cannot_be_downloaded_the_missing_files_are_named(publish_dataset, tmp_path, server):
    publish_dataset("fashion_mnist", fashion_files())
    write_all(tmp_path / "fashion-mnist", dict(list(fashion_files().items())[:2]))
    server.content.clear()
    with pytest.raises(LabError) as caught:
        load("fashion_mnist", tmp_path)
    advice = str(caught.value).split(", or download ")[1]
    assert advice.count("http://") == 2
    assert "train" not in advice
    assert advice.endswith(f"put them in {tmp_path / 'fashion-mnist'}")


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (IMAGES, fashion_files()[IMAGES][:-100], "is damaged"),
        (IMAGES, b"<html>sign in to the network</html>", "is damaged"),
        (IMAGES, idx(np.zeros((20, 28, 27), np.uint8)), r"\[20, 28, 27\], not \[n, 28, 28\]"),
        (IMAGES, idx(np.zeros((19, 28, 28), np.uint8)), "20 train labels for 19 images"),
        (IMAGES, idx(np.zeros((0, 28, 28), np.uint8)), "there are no train images"),
        (LABELS, idx(np.full(20, 10, np.uint8)), "run up to 10, but there are 10 classes"),
        (LABELS, idx(np.zeros(20, np.uint8))[:0], "is not an idx file"),
        (LABELS, gzip.compress(b"\0\0\x08\1\0\0\0\x14short", mtime=0), r"13 bytes, not those of its shape \[20\]"),
        (LABELS, gzip.compress(b"\0\0\x08\3\0", mtime=0), "not those of its shape"),
        (LABELS, gzip.compress(b"\0\0\x08\xff" + bytes(2000), mtime=0), "states 255 dimensions"),
        (
            LABELS,
            gzip.compress(b"\0\0\x08\1" + b"\xff" * 4 + bytes(99), mtime=0),
            "states the shape .* more than 100.0 MB",
        ),
        (LABELS, idx(np.zeros(20, np.uint8)) + gzip.compress(bytes(10**8), mtime=0), "not those of its shape"),
    ],
)
def test_the_error_about_a_damaged_fashion_mnist_gives_the_problem(tmp_path, name, content, reason):
    write_all(tmp_path, fashion_files() | {name: content})
    with pytest.raises(LabError, match=f"{tmp_path}.*{reason}"):
        load("fashion_mnist", tmp_path, download=False)


def test_the_official_urls_and_the_default_augmentations_are_these():
    assert {name: default_augmentation(name) for name in DATASETS} == {
        "digits": (),
        "fashion_mnist": ("crop:2", "flip"),
        "cifar10": ("crop:4", "flip"),
        "cifar100": ("crop:4", "flip"),
    }
    assert DATASETS["cifar100"].downloads[0].url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    for info in DATASETS.values():
        for download in info.downloads:
            method, digest = download.checksum.split(":")
            assert len(digest) == {"sha256": 64, "md5": 32}[method]


def test_a_relative_folder_is_relative_to_the_data_folder_or_else_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match=f"cannot read {tmp_path}/data/pets: "):
        load("folder:pets", Path(tmp_path / "data"))
    with pytest.raises(LabError, match="cannot read pets: "):
        load("folder:pets")
    with pytest.raises(LabError, match="has no subfolders"):
        load("folder:.")
    with pytest.raises(LabError, match="has no path"):
        load("folder:")
