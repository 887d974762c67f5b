"""Studies whose arms differ in the network, its weights and what of it is frozen."""

from pathlib import Path

import pytest
from support.run_contents import run_contents

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models import weights as weights_module
from convolab.models.weights import provide_weights
from convolab.studies.compare import find_runs_of_arm
from convolab.studies.ray_task import codes_to_send, library_version, weights_to_send
from convolab.studies.runner import execute_study
from convolab.studies.study import Study
from convolab.training.recipe import Recipe
from convolab.training.run import Run

SMALL = {"name": "simple_convnet", "channels": [4, 6]}
RECIPE = {"data": {"limit": 100}, "model": SMALL, "training": {"epochs": 1, "batch_size": 30}}


@pytest.fixture
def source(tmp_path: Path, digits: DatasetSplits) -> Run:
    return Run.start(Recipe.from_dict(RECIPE), digits, tmp_path / "source")


@pytest.mark.slow
def test_arms_differ_in_networks_weights_and_frozen_layers(source: Run, tmp_path: Path, in_process: object) -> None:
    arms = {
        "scratch": {},
        "tuned": {"model.weights": str(source.folder)},
        "frozen": {"model.weights": str(source.folder), "model.freeze": "all but the last layer"},
        "library": {"model.name": "timm/test_resnet"},
    }
    values = {"name": "start", "seeds": [0], "recipe": RECIPE, "sections": {"start": {"arms": arms}}}
    result = execute_study(Study.from_dict(values), tmp_path / "study", executor=in_process)
    assert {r.trial.arm: r.status for r in result.trial_results.values()} == dict.fromkeys(arms, "finished")
    for arm in arms:
        (run,) = find_runs_of_arm(f"{tmp_path / 'study'}:{arm}")
        assert (run.summary["pretrained"] is not None) == (arm in ("tuned", "frozen"))
    before = {r.trial.arm: run_contents(r.folder) for r in result.trial_results.values()}
    again = execute_study(Study.from_dict(values), tmp_path / "study", executor=in_process)
    assert {r.trial.arm: run_contents(r.folder) for r in again.trial_results.values()} == before


@pytest.mark.slow
def test_an_arm_that_cannot_be_frozen_is_named_before_anything_is_trained(tmp_path: Path, in_process: object) -> None:
    arms = {"scratch": {}, "wrong": {"model.freeze": ["nothing.*"]}}
    values = {"name": "start", "seeds": [0], "recipe": RECIPE, "sections": {"start": {"arms": arms}}}
    with pytest.raises(LabError, match=r"arm 'wrong': model.freeze: no parameter of the network fits 'nothing\.\*'"):
        execute_study(Study.from_dict(values), tmp_path / "study", executor=in_process)
    assert not (tmp_path / "study" / "runs").exists()


@pytest.mark.slow
def test_a_node_without_the_file_trains_from_the_bytes_that_were_sent(
    source: Run, tmp_path: Path, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.from_dict({**RECIPE, "model": {**SMALL, "weights": str(source.folder)}})
    sent = weights_to_send(recipe)
    expected = Run.start(recipe, digits, tmp_path / "here")
    source.delete()
    monkeypatch.setattr(weights_module, "_PROVIDED", {})
    with pytest.raises(LabError):
        Run.start(recipe, digits, tmp_path / "there")
    for name, content in sent.items():
        provide_weights(name, content)
    assert run_contents(Run.start(recipe, digits, tmp_path / "there").folder) == run_contents(expected.folder)


@pytest.mark.slow
def test_a_network_of_a_library_needs_no_code_and_the_same_version_on_every_node() -> None:
    recipe = Recipe.from_dict({"model": {"name": "timm/test_resnet"}})
    assert codes_to_send(recipe) == {}
    assert library_version(recipe).keys() == {"timm"}
    assert library_version(Recipe()) == {}
    assert weights_to_send(Recipe()) == {}
