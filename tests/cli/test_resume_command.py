"""convolab resume --epochs."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_a_finished_run_is_given_more_epochs_and_the_table_of_runs_names_its_parent(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--out", "runs/short")
    result = run_cli("resume", "runs/short", "--epochs", 2, "--out", "runs/long")
    assert result.code == 0, result.err
    assert "runs/long: finished after 2 of 2 epochs" in result.out
    assert "bit for bit what 2 epochs from scratch give" in result.err
    rows = {row["folder"]: row for row in json.loads(run_cli("runs", "--json").out)}
    assert rows["runs/long"]["parent"] == rows["runs/short"]["recipe_key"]
    assert rows["runs/short"]["parent"] is None
    again = run_cli("resume", "runs/short", "--epochs", 2, "--out", "runs/long")
    assert (again.code, "holds a run already" in again.err) == (2, True)


def test_a_folder_without_more_epochs_is_refused(run_cli) -> None:
    result = run_cli("resume", "run", "--out", "new")
    assert result.code == 2
    assert "--out is for a new run: give --epochs too" in result.err
