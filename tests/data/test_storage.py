"""What convolab stored and may delete; files of the user are kept."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from support.small_sets import cifar10_files, fashion_files, write_all

from convolab.core.environment import cache_folder
from convolab.core.errors import LabError
from convolab.data.catalog import download_dataset
from convolab.data.storage import clean, list_stored


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    return tmp_path


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_the_files_of_a_downloaded_archive_are_listed_and_deleted_with_their_folder(published_cifar10_archive, root):
    folder = download_dataset("cifar10")
    (item,) = list_stored()
    assert (item.name, item.kind, item.num_bytes) == ("cifar10", "dataset", size_of(folder))
    assert clean(["cifar10"]) == item.num_bytes
    assert os.listdir(root) == []
    assert list_stored() == []


@pytest.mark.slow
def test_a_deleted_dataset_is_downloaded_again(published_cifar10_archive, root, server):
    download_dataset("cifar10")
    clean(["cifar10"])
    download_dataset("cifar10")
    assert len(server.ranges) == 2


def test_only_the_downloaded_files_of_fashion_mnist_are_deleted(publish_dataset, root):
    files = fashion_files()
    publish_dataset("fashion_mnist", files)
    own_file = next(iter(files))
    write_all(root / "fashion-mnist", {own_file: files[own_file]})
    download_dataset("fashion_mnist")
    assert clean(["fashion_mnist"]) == sum(len(content) for name, content in files.items() if name != own_file)
    assert os.listdir(root / "fashion-mnist") == [own_file]


def test_a_folder_that_the_user_made_is_not_listed_and_cannot_be_deleted(root):
    write_all(root / "cifar-10-batches-py", cifar10_files())
    assert list_stored() == []
    with pytest.raises(LabError, match=r"convolab has stored no 'cifar10' in .*: known: none"):
        clean(["cifar10"])
    assert len(os.listdir(root / "cifar-10-batches-py")) == 7


@pytest.mark.slow
def test_a_file_that_was_changed_or_added_is_kept(published_cifar10_archive, root):
    folder = download_dataset("cifar10")
    (folder / "test_batch").write_bytes(b"the user's own")
    (folder / "notes.txt").write_text("mine")
    clean(["cifar10"])
    assert sorted(os.listdir(folder)) == ["notes.txt", "test_batch"]


@pytest.mark.slow
def test_a_folder_replaced_by_a_link_is_not_touched(published_cifar10_archive, root, tmp_path_factory):
    folder = download_dataset("cifar10")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cifar"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert list_stored() == []
    assert len(os.listdir(elsewhere)) == 7


def test_a_record_that_names_files_outside_the_folder_deletes_none_of_them(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "precious"
    outside.write_text("precious")
    relative = os.path.relpath(outside, root)
    (root / ".malicious.files.json").write_text(f'{{"files": {{"{relative}": null, "{outside}": null}}}}')
    (root / ".broken.files.json").write_text('{"files": [1, 2]}')
    assert list_stored() == []


@pytest.mark.slow
def test_an_unfinished_download_can_be_deleted(published_cifar10_archive, root, server):
    server.reply_limits = [100] * 3
    with pytest.raises(LabError, match="was lost 3 times"):
        download_dataset("cifar10")
    assert clean(["cifar10"]) == 300
    assert os.listdir(root) == []


@pytest.mark.slow
def test_a_partial_file_that_the_user_put_there_is_kept(published_cifar10_archive, root, server):
    (root / "cifar-10-python.tar.gz.part").write_bytes(published_cifar10_archive[:50])
    server.content.clear()
    with pytest.raises(LabError, match="404"):
        download_dataset("cifar10")
    assert list_stored() == []


@pytest.mark.slow
def test_a_dataset_that_is_being_downloaded_is_not_deleted(published_cifar10_archive, root):
    folder = download_dataset("cifar10")
    with FileLock(root / ".cifar10.lock"), pytest.raises(LabError, match="cifar10 is being downloaded"):
        clean(["cifar10"])
    assert len(os.listdir(folder)) == 7


def test_a_cache_is_listed_and_deleted_but_not_a_folder_of_the_user_among_the_caches(root):
    folder = cache_folder("hub")
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(bytes(1000))
    (root / "cache" / "mine").mkdir()
    (root / "cache" / "mine" / "notes.txt").write_text("mine")
    assert cache_folder("mine") == root / "cache" / "mine"
    (item,) = list_stored()
    assert (item.name, item.kind, item.num_bytes) == ("hub", "cache", size_of(folder))
    assert clean(["hub"]) > 1000
    assert os.listdir(root / "cache") == ["mine"]


@pytest.mark.slow
def test_an_unknown_name_deletes_nothing_and_the_error_suggests_a_name(published_cifar10_archive, root):
    folder = download_dataset("cifar10")
    with pytest.raises(LabError, match=r"stored no 'cifar01' in .*: did you mean 'cifar10'"):
        clean(["cifar10", "cifar01"])
    assert folder.exists()


@pytest.mark.slow
def test_another_folder_can_be_cleaned(published_cifar10_archive, root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    download_dataset("cifar10", other)
    assert list_stored() == []
    assert [item.name for item in list_stored(other)] == ["cifar10"]
    assert clean(["cifar10", "cifar10"], other) > 0
    assert os.listdir(other) == []
