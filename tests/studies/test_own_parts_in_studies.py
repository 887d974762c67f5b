"""Studies whose arms have parts of a person's own: what is read from the folder later has every arm."""

from pathlib import Path

import pytest

import convolab
from convolab.core.errors import LabError
from convolab.studies.executor import Executor
from convolab.studies.runner import execute_study, read_study_result
from convolab.studies.stored_study import read_stored_study
from convolab.studies.study import Study

pytestmark = pytest.mark.slow
PARTS = """
import torch
import torch.nn.functional as F
def hinge(logits, targets, slope=1.0):
    return F.multi_margin_loss(logits, targets) * slope
class Mine(torch.optim.SGD):
    def __init__(self, params, lr=0.05, momentum=0.5):
        super().__init__(params, lr=lr, momentum=momentum)
"""
SECTIONS = {
    "arms": {
        "arms": {"hinge": {"loss.name": "parts.py:hinge"}, "cross": {}, "mine": {"optimizer.name": "parts.py:Mine"}},
        "contrasts": [{"arm": "hinge", "baseline": "cross"}],
    },
    "overrides": {
        "overrides": {"optimizer.name": "parts.py:Mine"},
        "arms": {"slow": {"optimizer.lr": 0.01}, "fast": {}},
    },
    "grid": {"grid": {"loss.name": ["parts.py:hinge", "focal"]}},
    "library": {"grid": {"optimizer.name": ["RMSprop", "sgd"]}},
}  # fmt: skip


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_study_is_read_back_with_every_run_and_runs_no_code(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(PARTS)
    recipe = {"data": {"limit": 60}, "model": {"name": "shallow_net"}, "training": {"epochs": 1, "batch_size": 16}}
    study = Study.from_dict({"name": "own", "seeds": [0, 1], "recipe": recipe, "sections": {kind: SECTIONS[kind]}})
    result = execute_study(study, tmp_path / "study")
    Path("parts.py").write_text("raise SystemExit('this code must not run')")
    stored = read_stored_study(tmp_path / "study" / "study.toml")
    assert stored.recipes.keys() == study.recipes.keys()
    again = read_study_result(tmp_path / "study")
    assert [trial.status for trial in again.trial_results.values()] == ["finished"] * len(study.trials)
    assert [c.verdict for c in again.sections[0].contrast_results] == [
        c.verdict for c in result.sections[0].contrast_results
    ]


@pytest.mark.parametrize("kind", ["arms", "grid"])
def test_a_study_that_goes_on_is_not_called_changed_for_the_defaults_that_its_file_writes_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: Executor
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(PARTS)
    recipe = {"data": {"limit": 60}, "model": {"name": "shallow_net"}, "training": {"epochs": 1, "batch_size": 16}}
    study = Study.from_dict({"name": "own", "seeds": [0], "recipe": recipe, "sections": {kind: SECTIONS[kind]}})
    execute_study(study, tmp_path / "study", executor=in_process)
    assert (tmp_path / "study" / "study.toml").read_text() != study.to_toml()
    messages: list[str] = []
    execute_study(study, tmp_path / "study", executor=in_process, on_message=messages.append)
    assert not any("has changed" in message for message in messages)


def test_arms_with_an_own_loss_and_without_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(PARTS)
    recipe = {"data": {"limit": 60}, "model": {"name": "shallow_net"}, "training": {"epochs": 1, "batch_size": 16}}
    study = Study.from_dict({"name": "own", "seeds": [0, 1], "recipe": recipe, "sections": {"a": SECTIONS["arms"]}})
    execute_study(study, tmp_path / "study")
    found = convolab.compare(["study:hinge", "study:cross"])
    assert [len(arm.finished) for arm in found.sections[0].arms] == [2, 2]
    with pytest.raises(LabError, match="has no arm 'hing'"):
        convolab.compare(["study:hing", "study:cross"])
