"""`convolab data`: list, preview, download, clean."""

import json

import pytest
from PIL import Image

from convolab.core.environment import cache_folder


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """A cache of convolab's in a folder of its own."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    folder = cache_folder("offsets")
    (folder / "net.json").write_text("x" * 1000)
    return folder


def test_datasets_are_listed(lab) -> None:
    listed = {info["name"]: info for info in json.loads(lab("data", "list", "--json").out)}
    assert {"digits", "fashion_mnist", "cifar10", "cifar100"} <= set(listed)
    assert listed["cifar10"]["num_train"] == 50_000
    assert listed["cifar10"]["default_augment"] == ["crop:4", "flip"]
    assert "folder:PATH" in lab("data", "list").out


def test_a_dataset_is_shown_on_a_contact_sheet(lab) -> None:
    overview = json.loads(lab("data", "show", "digits", "--json").out)
    assert (overview["num_train"], overview["num_test"], overview["contact_sheet"]) == (1438, 359, "contact_sheet.png")
    with Image.open("contact_sheet.png") as sheet:
        assert sheet.width > 300
        assert len(set(sheet.convert("L").tobytes())) > 10  # digits have shades


def test_nothing_is_deleted_without_a_question_or_yes(lab, cached) -> None:
    result = lab("data", "clean")
    assert result.code == 2
    assert "cache offsets" in result.err
    assert "add --yes" in result.err
    assert (cached / "net.json").exists()


def test_yes_deletes_what_convolab_stored_and_says_how_much(lab, cached) -> None:
    result = json.loads(lab("data", "clean", "offsets", "--yes", "--json").out)
    assert result["deleted"] == ["offsets"]
    assert result["bytes"] >= 1000
    assert not cached.exists()
    assert "nothing to delete" in lab("data", "clean").out


def test_a_person_who_answers_no_keeps_everything(lab, cached, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert lab("data", "clean").code == 1
    assert (cached / "net.json").exists()


def test_an_unknown_name_to_delete_is_one_line(lab, cached) -> None:
    result = lab("data", "clean", "offset", "--yes")
    assert result.code == 2
    assert result.err == "convolab: convolab has stored no 'offset': did you mean 'offsets'?\n"
