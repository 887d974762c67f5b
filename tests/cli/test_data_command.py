"""The command `convolab data`: list, preview, download, clean."""

import json
import re

import pytest
from PIL import Image

from convolab.core.environment import cache_folder


@pytest.fixture
def offsets_cache(monkeypatch, tmp_path):
    """A cache of convolab in a folder of its own."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    folder = cache_folder("offsets")
    (folder / "net.json").write_text("x" * 1000)
    return folder


def test_datasets_are_listed(run_cli) -> None:
    listed = {info["name"]: info for info in json.loads(run_cli("data", "list", "--json").out)}
    assert {"digits", "fashion_mnist", "cifar10", "cifar100"} <= set(listed)
    assert listed["cifar10"]["num_train"] == 50_000
    assert listed["cifar10"]["default_augment"] == ["crop:4", "flip"]
    assert "folder:PATH" in run_cli("data", "list").out


@pytest.mark.slow
def test_a_dataset_is_shown_on_a_contact_sheet(run_cli) -> None:
    overview = json.loads(run_cli("data", "show", "digits", "--json").out)
    assert (overview["num_train"], overview["num_test"], overview["contact_sheet"]) == (1438, 359, "contact_sheet.png")
    with Image.open("contact_sheet.png") as image:
        assert image.width > 300
        assert len(set(image.convert("L").tobytes())) > 10  # digits have gray levels


def test_nothing_is_deleted_without_confirmation_or_yes(run_cli, offsets_cache) -> None:
    result = run_cli("data", "clean")
    assert result.code == 2
    assert "cache offsets" in result.err
    assert "add --yes" in result.err
    assert (offsets_cache / "net.json").exists()


def test_yes_deletes_what_convolab_stored_and_reports_its_size(run_cli, offsets_cache) -> None:
    result = json.loads(run_cli("data", "clean", "offsets", "--yes", "--json").out)
    assert result["deleted"] == ["offsets"]
    assert result["bytes"] >= 1000
    assert not offsets_cache.exists()
    assert "nothing to delete" in run_cli("data", "clean").out


def test_the_answer_no_keeps_everything(run_cli, offsets_cache, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run_cli("data", "clean").code == 1
    assert (offsets_cache / "net.json").exists()


def test_an_unknown_name_to_delete_gives_one_line(run_cli, offsets_cache) -> None:
    result = run_cli("data", "clean", "offset", "--yes")
    assert result.code == 2
    assert re.fullmatch(r"convolab: convolab has stored no 'offset' in .*: did you mean 'offsets'\?\n", result.err)
