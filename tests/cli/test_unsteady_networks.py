"""Own networks whose logits for an image are not a function of the image, and own networks that keep something by the way."""

from pathlib import Path

import pytest

import convolab

NETWORKS = """
import torch.nn.functional as F
from torch import nn


class Linear(nn.Module):
    def __init__(self, shape, num_classes):
        super().__init__()
        self.head, self.steps, self.sizes = nn.Linear(64, num_classes), 0, []

    def forward(self, x):
        return self.head(x.flatten(1))


class BatchMean(Linear):
    def forward(self, x):
        return self.head(x.flatten(1) - x.flatten(1).mean(0, keepdim=True))


class Dropout(Linear):
    def forward(self, x):
        return self.head(F.dropout(x.flatten(1), 0.5))


class Drift(Linear):
    def forward(self, x):
        if self.training:
            self.steps += 1
        return self.head(x.flatten(1)) * (1 + 0.02 * self.steps)


class Notes(Linear):
    def forward(self, x):
        self.sizes.append(len(x))
        return self.head(x.flatten(1))


class Softmax(Linear):
    def forward(self, x):
        return self.head(x.flatten(1)).softmax(1)


class Nan(Linear):
    def forward(self, x):
        return self.head(x.flatten(1)) * (1 if self.training else float("nan"))


class Exit(Linear):
    def forward(self, x):
        raise SystemExit(0)
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BatchMean", "depend on the other images of its batch"),
        ("Dropout", "other logits for the same images each time"),
    ],
)
def test_a_network_whose_logits_are_no_function_of_the_image_says_so_and_predicts_nothing(
    run_cli, networks: Path, name: str, words: str
) -> None:
    trained = run_cli("train", f"own.py:{name}", "--epochs", "1", "--out", "run")
    assert words in trained.err
    assert words in run_cli("test", "run").err
    run = convolab.Run("run")
    assert words in run.test_result.caution
    assert words in run.net().caution
    for command in (["predict", "run", "chelsea"], ["export", "run", "--to", "torch", "--out", "net.pt2"]):
        refused = run_cli(*command)
        assert refused.code == 2
        assert words in refused.err
        assert refused.err.count("\n") == 1


def test_a_steady_network_has_no_caution(networks: Path) -> None:
    run = convolab.train("own.py:Linear", epochs=1, out="run")
    run.test()
    assert run.test_result.caution == ""
    assert len(run.predict("chelsea")) == 5


def test_a_network_that_computes_with_a_number_it_counts_is_refused_as_not_resumable(networks: Path) -> None:
    with pytest.raises(convolab.LabError, match=r"computes with self\.steps, which it changes.*register_buffer"):
        convolab.train("own.py:Drift", epochs=2, out="run")
    run = convolab.train("own.py:Drift", epochs=2, out="inexact", overrides={"training.exact": False})
    assert run.status == "finished"


def test_a_network_that_only_notes_something_down_is_trained(networks: Path) -> None:
    assert convolab.train("own.py:Notes", epochs=2, out="run").status == "finished"


@pytest.mark.slow
def test_a_network_that_ends_in_a_softmax_is_reported(run_cli, networks: Path) -> None:
    assert "gives probabilities, not logits" in run_cli("train", "own.py:Softmax", "--epochs", "1", "--out", "run").err


def test_a_network_that_gives_nan_once_it_is_evaluated_is_not_called_random(run_cli, networks: Path) -> None:
    trained = run_cli("train", "own.py:Nan", "--epochs", "1", "--set", "data.validation=0", "--out", "run")
    assert "gives logits that are NaN or infinite" in trained.err
    refused = run_cli("predict", "run", "chelsea")
    assert refused.code == 2
    assert refused.err.startswith("convolab: the network gives logits that are NaN or infinite")
    assert refused.err.count("\n") == 1


def test_a_network_that_ends_the_program_is_one_line_and_no_success(run_cli, networks: Path) -> None:
    refused = run_cli("train", "own.py:Exit", "--out", "run")
    assert "SystemExit: 0 (own.py, line 50)" in refused.err
    assert not Path("run").exists()
