"""convolab test: what it prints, and the gallery of a run that was tested before."""

import json
from pathlib import Path

import pytest

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
