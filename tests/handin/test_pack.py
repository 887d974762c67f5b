"""The file that is handed in."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from support.homework_folder import edit_cell

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.handin import pack
from convolab.handin.check import check_folder
from convolab.handin.homework import Homework
from convolab.handin.pack import pack_homework
from convolab.training.recipe import Recipe
from convolab.training.run import Run

pytestmark = pytest.mark.slow  # each test packs


@pytest.fixture
def real_pages() -> None:
    """The notebooks' pages are made by nbconvert, which takes seconds."""


@pytest.fixture(autouse=True)
def quick_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are empty, but in the tests that ask for `real_pages`."""
    if "real_pages" not in request.fixturenames:
        monkeypatch.setattr(pack, "notebook_page", lambda content: b"<html></html>")


def test_all_that_was_done_is_packed_with_its_digests(done: Path, homework: Homework, tmp_path: Path) -> None:
    out = tmp_path / "handin.zip"
    result = pack_homework(homework, done, out, "Ada Lovelace")
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        assert archive.testzip() is None
        digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names if name != "manifest.json"}
        weights = json.loads(archive.read("evidence/simple_convnet-0/weights.json"))
    assert names == sorted(names) == list(result.files)
    assert "OPEN.md" not in names
    assert {"question1.pdf", "question1_answers.md", "question2_training.ipynb"} <= set(names)
    assert manifest["sha256"] == digests
    assert manifest["name"] == "Ada Lovelace"
    assert all(item["done"] for item in manifest["items"])
    expected = hashlib.sha256(b"best.safetensors of run 0").hexdigest()
    assert weights == {"sha256": {"best.safetensors": expected}}
    assert not any(name.endswith(".safetensors") for name in names)


@pytest.mark.long
@pytest.mark.usefixtures("real_pages")
def test_equal_content_gives_equal_bytes(done: Path, homework: Homework, tmp_path: Path) -> None:
    packed = []
    for number in range(2):
        for path in done.rglob("*"):
            path.touch()
        packed.append(tmp_path / f"{number}.zip")
        pack_homework(homework, done, packed[-1], "Ada")
    assert packed[0].read_bytes() == packed[1].read_bytes()


def test_what_is_open_is_written_into_the_zip_and_refused_with_strict(
    done: Path, homework: Homework, tmp_path: Path
) -> None:
    edit_cell(done / "question2_training.ipynb", "q2-8-comment", source="")
    (done / "question3_4_inspection.ipynb").unlink()
    out = tmp_path / "handin.zip"
    with pytest.raises(LabError, match=r"6 of 20 items are open"):
        pack_homework(homework, done, out, "Ada", strict=True)
    assert not out.exists()
    result = pack_homework(homework, done, out, "Ada")
    with zipfile.ZipFile(out) as archive:
        text = archive.read("OPEN.md").decode()
        manifest = json.loads(archive.read("manifest.json"))
    assert "- 2.8 curves with and without residual connections, comment: it is empty" in text
    assert {item["id"] for item in manifest["items"] if not item["done"]} == {"2.8", "3.1", "3.2", "4.1", "4.2", "4.3"}
    assert any("question3_4_inspection.ipynb is missing" in note for note in result.notes)


def test_a_fast_run_stands_in_the_manifest(done: Path, homework: Homework, tmp_path: Path) -> None:
    printed = {"output_type": "stream", "name": "stdout", "text": "data = digits\nfast = True\n"}
    for path, cell, expected in (
        ("question2_training.ipynb", "q2-settings", ["question2_training"]),
        ("question3_4_inspection.ipynb", "q3-settings", ["question2_training", "question3_4_inspection"]),
    ):
        edit_cell(done / path, cell, outputs=[printed])
        pack_homework(homework, done, tmp_path / "handin.zip", "Ada")
        with zipfile.ZipFile(tmp_path / "handin.zip") as archive:
            assert json.loads(archive.read("manifest.json"))["fast_runs"] == expected
            assert "this was the fast run" in archive.read("OPEN.md").decode()


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "\x1b[31m", "x" * 201])
def test_a_name_that_cannot_be_printed_is_refused(done: Path, homework: Homework, tmp_path: Path, name: str) -> None:
    with pytest.raises(LabError, match="--name"):
        pack_homework(homework, done, tmp_path / "a.zip", name)


def test_a_file_that_is_not_ours_is_never_replaced(done: Path, homework: Homework, tmp_path: Path) -> None:
    other, foreign, link = tmp_path / "photos.zip", tmp_path / "foreign.zip", tmp_path / "link.zip"
    other.write_bytes(b"mine")
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("a.txt", "a")
    link.symlink_to(other)
    for path in (other, foreign, link, tmp_path / "handin.tar"):
        with pytest.raises(LabError, match=r"choose another name|ends in .zip"):
            pack_homework(homework, done, path, "Ada")
    assert other.read_bytes() == b"mine"
    assert pack_homework(homework, done, tmp_path / "ours.zip", "Ada").replaced == ""
    again = pack_homework(homework, done, tmp_path / "ours.zip", "Ada")
    assert again.replaced == "the hand-in of Ada, 20 of 20 items done"


def test_the_hand_in_of_another_person_or_one_that_was_changed_is_never_replaced(
    done: Path, homework: Homework, tmp_path: Path
) -> None:
    ours = tmp_path / "ours.zip"
    pack_homework(homework, done, ours, "李")
    before = ours.read_bytes()
    for name in ("王", "li", "李 "):
        with pytest.raises(LabError, match="is the hand-in of 李, not of"):
            pack_homework(homework, done, ours, name)
    assert ours.read_bytes() == before
    with zipfile.ZipFile(ours, "a") as archive:
        archive.writestr("note.txt", "mine")
    with pytest.raises(LabError, match="choose another name"):
        pack_homework(homework, done, ours, "李")
    with zipfile.ZipFile(ours) as archive:
        assert archive.read("note.txt") == b"mine"


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"name": "an extension"}', "[" * 100_000])
def test_a_zip_with_a_manifest_of_something_else_is_not_replaced(
    done: Path, homework: Homework, tmp_path: Path, manifest: str
) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", manifest)
    before = (tmp_path / "other.zip").read_bytes()
    with pytest.raises(LabError, match=r"no sign that convolab wrote it as hand-in: choose another name"):
        pack_homework(homework, done, tmp_path / "other.zip", "Ada")
    assert (tmp_path / "other.zip").read_bytes() == before


def test_links_and_odd_names_do_not_get_into_the_zip(done: Path, homework: Homework, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    run = done / "runs" / "simple_convnet-0"
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(secret)
    (run / "last.safetensors").symlink_to(secret)
    (done / "runs" / "simple_convnet-1").rename(done / "runs" / "..\\..\\a\x1b")
    (done / "runs" / "simple_convnet-2" / "summary.json").write_text("{}")
    result = pack_homework(homework, done, tmp_path / "a.zip", "Ada")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert all(archive.read(name) != b"key" for name in archive.namelist())
        assert not any("\\" in name or ".." in name or name.startswith("/") for name in archive.namelist())
        weights = json.loads(archive.read("evidence/simple_convnet-0/weights.json"))
    assert weights["sha256"].keys() == {"best.safetensors"}
    assert any("is left out: rename it" in note and note.isprintable() for note in result.notes)
    assert any("leads out of" in note for note in result.notes)


def test_a_run_whose_training_was_killed_is_packed_with_a_note_of_how_to_finish_it(
    done: Path, homework: Homework, tmp_path: Path
) -> None:
    recipe = Recipe.from_dict({"data": {"limit": 300}, "training": {"epochs": 1}})
    path = Run.start(recipe, load("digits"), done / "runs" / "killed").folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    notes = pack_homework(homework, done, tmp_path / "a.zip", "Ada").notes
    assert [note for note in notes if "convolab resume runs/killed" in note], notes


def test_pages_of_the_notebooks_are_made_where_nbconvert_is_installed_and_else_noted(
    done: Path, homework: Homework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "find_spec", lambda name: None)
    result = pack_homework(homework, done, tmp_path / "a.zip", "Ada")
    assert any("nbconvert is not installed" in note for note in result.notes)
    monkeypatch.setattr(pack, "find_spec", lambda name: True)
    monkeypatch.setattr(pack, "notebook_page", lambda content: b"<html></html>")
    result = pack_homework(homework, done, tmp_path / "a.zip", "Ada")
    assert {"question2_training.html", "question3_4_inspection.html"} <= set(result.files)


@pytest.mark.usefixtures("real_pages")
def test_active_content_of_outputs_is_not_in_the_page(done: Path) -> None:
    pytest.importorskip("nbconvert", reason="pip install nbconvert")
    page = {"output_type": "display_data", "data": {"text/html": "<script>steal()</script>"}, "metadata": {}}
    edit_cell(done / "question2_training.ipynb", "q2-5-figure", outputs=[page])
    html = pack.notebook_page((done / "question2_training.ipynb").read_bytes())
    assert b"steal()</script>" not in html


@pytest.mark.usefixtures("real_pages")
def test_why_there_is_no_page_of_a_notebook_stands_in_one_line_with_the_remedy(
    done: Path, homework: Homework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nbconvert", reason="pip install nbconvert")
    with pytest.raises(LabError, match=r"nbconvert cannot convert it \(\w+: .*\); save it again in Jupyter"):
        pack.notebook_page(b"{}")

    def fail(self: object, *_: object, **__: object) -> None:
        raise ValueError("No template sub-directory\nwith name 'lab' found")

    monkeypatch.setattr("nbconvert.HTMLExporter.from_notebook_node", fail)
    notes = pack_homework(homework, done, tmp_path / "a.zip", "Ada").notes
    reason = "nbconvert cannot convert it (ValueError: No template sub-directory with name 'lab' found)"
    assert [note.partition(";")[0] for note in notes] == [
        f"no HTML of {name}.ipynb: {reason}" for name in ("question2_training", "question3_4_inspection")
    ]
    assert all("pip install --force-reinstall nbconvert" in note and note.isprintable() for note in notes)


def test_an_unpacked_zip_is_checked_like_the_folder_it_was_made_of(
    done: Path, homework: Homework, tmp_path: Path
) -> None:
    pack_homework(homework, done, tmp_path / "a.zip", "Ada")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert check_folder(homework, tmp_path / "unpacked").open_items == []
