"""No command writes over what is not its own: all is refused before work starts."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_image(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


COMMANDS = {  # a command whose output goes to OUT, and the files that it would write there
    "explain p.png --out OUT": (".png", ".npz", ".json"),
    "fool p.png --target 1 --out OUT": (".png", ".npz", ".json"),
    "locate p.png --out OUT": (".png", ".npz", ".json"),
    "locate-score photos --out OUT": (".html", ".png", ".csv", ".json"),
    "data show digits --out OUT.png": (".png",),
    "summary shallow_net --input 1x28x28 --out OUT.svg": (".svg",),
    "summary shallow_net --input 1x28x28 --csv OUT.csv": (".csv",),
    "theory --quick --out OUT.md": (".md",),
    "theory --quick --out OUT.html": (".html",),
    "theory --quick --pdf OUT.pdf": (".pdf",),
    "train shallow_net --overfit-one-batch --out OUT": ("/overfit.html", "/overfit.json"),
    "sweep shallow_net optimizer.lr=0.1,0.2 --out OUT": ("/report.html", "/report.json"),
    "sweep shallow_net optimizer.lr=0.1,0.2 --export OUT": ("/README.md",),
}


@pytest.mark.parametrize(("command", "suffix"), [(name, suffix) for name, all_ in COMMANDS.items() for suffix in all_])
def test_a_persons_own_file_is_never_replaced(run_cli, tmp_path: Path, command: str, suffix: str) -> None:
    write_image(tmp_path / "p.png")
    own = tmp_path / f"mine{suffix}"
    own.parent.mkdir(exist_ok=True)
    own.write_text("my own")
    before = sorted(tmp_path.rglob("*"))
    result = run_cli(*command.replace("OUT", "mine").split())
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "choose another name" in result.err
    assert own.read_text() == "my own"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", ["p", "p.png", "./p", "sub/../p"])
def test_an_image_is_never_replaced_by_what_is_found_in_it(run_cli, tmp_path: Path, out: str) -> None:
    content = write_image(tmp_path / "p.png")
    (tmp_path / "sub").mkdir()
    for command in ("explain", "locate"):
        result = run_cli(command, "p.png", "--out", out)
        assert (result.code, result.err.count("\n")) == (2, 1)
    assert (tmp_path / "p.png").read_bytes() == content


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere.png"), Path.mkdir])
def test_a_pipe_a_link_and_a_folder_are_refused(run_cli, tmp_path: Path, make) -> None:
    out = tmp_path / "sheet.png"
    make(out)
    before = out.lstat()[:7]  # all but when it was read
    result = run_cli("data", "show", "digits", "--out", out)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert out.lstat()[:7] == before
    assert not (tmp_path / "elsewhere.png").exists()


def test_the_report_of_a_comparison_is_a_page(run_cli, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "recipe.toml").write_text("own")
    result = run_cli("compare", "a", "b", "--out", "a/recipe.toml")
    assert (result.code, (tmp_path / "a" / "recipe.toml").read_text()) == (2, "own")
    assert "ending in .html" in result.err
    assert "ending in .html" in run_cli("compare", "a", "b", "--out", "report.htm").err


@pytest.mark.slow
def test_a_chart_of_an_ending_in_capitals_is_what_the_ending_says(run_cli, tmp_path: Path) -> None:
    result = run_cli("summary", "shallow_net", "--input", "1x8x8", "--out", "cost.PNG")
    assert result.code == 0, result.err
    with Image.open(tmp_path / "cost.PNG") as image:
        assert image.format == "PNG"


@pytest.mark.slow
def test_a_sheet_of_images_replaces_itself_and_nothing_else(run_cli, tmp_path: Path) -> None:
    for _ in range(2):
        assert run_cli("data", "show", "digits").code == 0
    assert run_cli("summary", "shallow_net", "--input", "1x28x28", "--out", "contact_sheet.png").code == 2


@pytest.mark.slow
def test_the_charts_of_a_run_are_its_own(run_cli, tmp_path: Path) -> None:
    for seed, name in ((0, "a"), (1, "b")):
        command = ("train", "shallow_net", "--epochs", "1", "--set", "data.limit=400", "--seed", seed, "--out", name)
        assert run_cli(*command).code == 0
        assert run_cli("test", name).code == 0
    result = run_cli("test", "b", "--out", "a")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert run_cli("test", "b", "--out", "new").code == 0
    (tmp_path / "a" / "curves.svg").write_text("my own")
    result = run_cli("resume", "a")
    assert (result.code, (tmp_path / "a" / "curves.svg").read_text()) == (2, "my own")
