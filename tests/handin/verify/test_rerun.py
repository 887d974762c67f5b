"""A run that is trained again: which of its numbers are compared, how exactly, and which runs are not trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.fence import Permission
from convolab.handin.verify.rerun import rerun_signs
from convolab.training.history import EpochMetrics
from convolab.training.recipe import Recipe

HISTORY = [
    EpochMetrics(1, 1.5, 0.3, 1.6, 0.25, 0.1, 2.0, 100.0),
    EpochMetrics(2, 0.9, 0.5, 1.0, 0.4, 0.05, 2.1, 95.0),
]
TEST = {"accuracy": 0.5, "loss": 1.1, "confusion": [[1, 1], [1, 1]]}
PLATFORM = {"threads": 1, "precision": "fp32", "hardware": {"processor": "P"}, "versions": {"torch": "2.9"}}
WEIGHTS = {"best.safetensors": "a" * 64, "last.safetensors": "b" * 64}
AGAIN = {**PLATFORM, "history": [epoch.to_record() for epoch in HISTORY], "weights": WEIGHTS, "test": TEST}
SUMMARY = {**PLATFORM, "status": "finished", "device": "cpu", "parent": None, "code": None, "parts": None}
INSTALLED = {"entry": "net.py", "module": "package.net", "is_installed": True, "sha256": {"net.py": "0" * 64}}
ROUNDINGS = {  # of each number: how far a repetition may be from it where bits need not agree, and what is too far
    "train_loss": (0.09, 0.1),
    "train_accuracy": (0.049, 0.051),
    "validation_loss": (0.09, 0.11),
    "validation_accuracy": (0.049, 0.051),
    "learning_rate": (5e-10, 1e-6),
}


@pytest.fixture
def run(tmp_path: Path) -> RunEvidence:
    recipe = Recipe.from_dict({"data": {"limit": 200}, "training": {"epochs": 2}})
    recipe.write(tmp_path / "recipe.toml")
    return RunEvidence("a", tmp_path, recipe, dict(SUMMARY), HISTORY, TEST, WEIGHTS)


@pytest.fixture
def train_again(monkeypatch: pytest.MonkeyPatch, run: RunEvidence) -> Callable[..., list[str]]:
    """The differences of the run if training it again gives a result; on another number of threads unless `exact`."""

    def call(exact: bool, **changes: object) -> list[str]:
        again = {**AGAIN, "threads": 1 if exact else 2, **changes}
        monkeypatch.setattr("convolab.handin.verify.rerun.run_fenced", lambda *_: again)
        return [f"{sign.weight}: {sign.what}" for sign in rerun_signs(run, Permission())]

    return call


def changed_history(name: str, value: object) -> list[dict[str, Any]]:
    return [HISTORY[0].to_record(), {**HISTORY[1].to_record(), name: value}]


def test_a_repetition_that_agrees_is_confirmed_bit_by_bit_only_where_bits_must_agree(train_again) -> None:
    assert train_again(True) == ["confirmed: trained again: 2 epochs and the weights agree bit by bit"]
    [line] = train_again(False)
    assert line.startswith(
        "confirmed: trained again: losses within 0.05 and 5 %, accuracies within 0.05; not bit by bit"
    )
    assert line.endswith("threads 1, here 2")


@pytest.mark.parametrize("name", ROUNDINGS)
def test_each_number_of_an_epoch_is_compared_exactly_or_within_roundings(train_again, name: str) -> None:
    own = getattr(HISTORY[1], name)
    within, beyond = ROUNDINGS[name]
    for exact, distance in ((True, 1e-9), (True, -1e-9), (False, beyond), (False, -beyond)):
        found = train_again(exact, history=changed_history(name, own + distance))
        assert found == [f"sign: trained again, {name} of epoch 2 is {own + distance}, and {own} was handed in"]
    for distance in (within, -within):
        [line] = train_again(False, history=changed_history(name, own + distance))
        assert line.startswith("confirmed: ")


@pytest.mark.parametrize("exact", [True, False])
def test_a_number_that_only_one_of_them_has_differs_and_a_time_does_not(train_again, exact: bool) -> None:
    [line] = train_again(exact, history=changed_history("validation_loss", None))
    assert line == "sign: trained again, validation_loss of epoch 2 is None, and 1.0 was handed in"
    [line] = train_again(exact, history=changed_history("train_seconds", 9.0))
    assert line.startswith("confirmed: ")
    [line] = train_again(exact, history=AGAIN["history"][:1])
    assert line == "sign: trained again it has 1 epoch, and 2 were handed in"


def test_each_file_of_weights_is_compared_where_bits_must_agree(train_again) -> None:
    for name in WEIGHTS:
        others = ({**WEIGHTS, name: "c" * 64}, {other: WEIGHTS[other] for other in WEIGHTS if other != name})
        for weights in others:
            words = f"sign: trained again, {name} has another SHA-256 than was handed in"
            assert train_again(True, weights=weights) == [words]
            assert train_again(False, weights=weights)[0].startswith("confirmed: ")


@pytest.mark.parametrize(("name", "value"), [("accuracy", 0.5001), ("loss", 1.1001), ("confusion", [[1, 0], [2, 1]])])
def test_a_test_is_repeated_with_the_same_accuracy_loss_and_confusions(train_again, name: str, value: object) -> None:
    [line] = train_again(True, test={**TEST, name: value})
    accuracy = value if name == "accuracy" else 0.5
    assert line == f"sign: tested again, its accuracy is {accuracy}, and 0.5 was handed in"


def test_the_accuracy_of_a_test_agrees_within_its_tolerance_on_another_machine(train_again) -> None:
    for accuracy in (0.451, 0.549):
        assert train_again(False, test={**TEST, "accuracy": accuracy})[0].startswith("confirmed: ")
    for accuracy in (0.449, 0.551):
        [line] = train_again(False, test={**TEST, "accuracy": accuracy})
        assert line == f"sign: tested again, its accuracy is {accuracy}, and 0.5 was handed in"


@pytest.mark.parametrize(
    ("model", "summary", "words"),
    [
        ({"weights": "pretrained"}, {}, "it began from weights that are not in the hand-in"),
        ({}, {"parent": {"recipe_key": "0" * 12}}, "it went on from a run that is not in the hand-in"),
        ({}, {"device": "cuda"}, "it was trained on cuda, and runs are trained again on the processor"),
        ({}, {"status": "stopped"}, "it was not finished: its status is stopped"),
        ({"name": "package.net:Net"}, {}, "its recipe names code that the hand-in does not hold"),
        ({"name": "package.net:Net"}, {"code": INSTALLED}, "its model is of a package that its owner installed"),
    ],
)
def test_a_run_that_cannot_be_repeated_from_its_evidence_is_not_trained_again(
    run: RunEvidence,
    monkeypatch: pytest.MonkeyPatch,
    model: dict[str, object],
    summary: dict[str, object],
    words: str,
) -> None:
    monkeypatch.setattr("convolab.handin.verify.rerun.run_fenced", lambda *_: pytest.fail("it was trained"))
    assert run.recipe is not None
    recipe = run.recipe.model_copy(update={"model": run.recipe.model.model_copy(update=model)})
    other = replace(run, recipe=recipe, summary={**SUMMARY, **summary})
    [sign] = rerun_signs(other, Permission(trust=True, unfenced=True))
    assert (sign.weight, sign.what) == ("skipped", f"not trained again: {words}")
