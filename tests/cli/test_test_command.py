"""convolab test: what it prints, and the gallery of a run that was tested before."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def test_a_gallery_of_a_tested_run_leaves_its_result_as_it_is(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--out", "run")
    first = run_cli("test", "run")
    assert first.code == 0
    record = Path("run/test.json").read_bytes()
    second = run_cli("test", "run", "--gallery", "--gallery-size", 7)
    assert second.code == 0, second.err
    assert Path("run/test.json").read_bytes() == record
    assert Path("run/mistakes.html").read_text().count("<li>") == 7
    values = json.loads(run_cli("test", "run", "--gallery", "--json").out)
    assert len(values["mistakes"]) == min(60, values["count"] - values["correct"])
    assert {"class_scores", "macro", "calibration", "top5_accuracy"} < {*values}


def test_a_record_of_an_older_version_is_read_and_shown_without_what_it_lacks(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--out", "run")
    run_cli("test", "run")
    path = Path("run/test.json")
    values = json.loads(path.read_text())
    for name in ("class_scores", "macro", "calibration", "top5_accuracy"):
        del values[name]
    path.write_text(json.dumps(values))
    result = run_cli("test", "run")
    assert result.code == 0
    assert "calibration error" not in result.out
    assert "mean of the classes" in result.out
    assert json.loads(path.read_text()) == values


def test_another_file_in_the_place_of_the_gallery_is_refused_before_the_test(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--out", "run")
    Path("run/mistakes.html").write_text("mine")
    result = run_cli("test", "run", "--gallery")
    assert (result.code, "run/mistakes.html exists" in result.err) == (2, True)
    assert not Path("run/test.json").exists()


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_gallery_names_the_files_of_ones_own_images(run_cli, kind: str) -> None:
    draw = np.random.default_rng(0)
    rows = ["path,label,split"]
    for split, count in (("train", 6), ("test", 4)):
        for label in ("cat", "dog"):
            for index in range(count):
                path = Path("pets", split, label, f"{label} {index}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (10, 10, 3), dtype=np.uint8)).save(path)
                rows.append(f"{path},{label},{split}")
    Path("pets.csv").write_text("\n".join(rows))
    data = "folder:pets" if kind == "folder" else "csv:pets.csv"
    settings = ("--set", "data.image_size=8", "--batch-size", 4, "--epochs", 1, "--out", "run")
    result = run_cli("train", "shallow_net", "--data", data, *settings)
    assert result.code == 0, result.err
    mistakes = json.loads(run_cli("test", "run", "--gallery", "--json").out)["mistakes"]
    assert mistakes
    for mistake in mistakes:
        path = Path("pets" if kind == "folder" else ".", mistake["image"])
        assert path.is_file()
        assert path.parts[1:3] == ("test", mistake["true"])
        assert path.name in Path("run/mistakes.html").read_text()


def test_with_views_asked_for_the_result_with_them_is_printed_too(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--set", "metrics.test_views=2", "--out", "run")
    output = run_cli("test", "run").out
    record = json.loads(Path("run/test.json").read_text())
    assert f"test accuracy {100 * record['accuracy']:.2f} %" in output
    assert f"with 2 views of each image: {100 * record['with_views']['accuracy']:.2f} % (95 % interval " in output
