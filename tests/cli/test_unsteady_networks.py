"""Own networks whose logits for an image are not a function of the image, and own networks that keep something by the way."""

from pathlib import Path

import pytest
import torch

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


class Sparse(Linear):
    def forward(self, x):
        return self.head(x.flatten(1)).to_sparse()


class Counts(Linear):
    def forward(self, x):
        return self.head(x.flatten(1)).long()


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


@pytest.mark.slow
def test_a_steady_network_has_no_caution(networks: Path) -> None:
    run = convolab.train("own.py:Linear", epochs=1, out="run")
    run.test()
    assert run.test_result.caution == ""
    assert len(run.predict("chelsea")) == 5


@pytest.mark.slow
def test_a_network_that_computes_with_a_number_it_counts_is_refused_as_not_resumable(networks: Path) -> None:
    with pytest.raises(convolab.LabError, match=r"computes with self\.steps, which it changes.*register_buffer"):
        convolab.train("own.py:Drift", epochs=2, out="run")
    run = convolab.train("own.py:Drift", epochs=2, out="inexact", overrides={"training.exact": False})
    assert run.status == "finished"


@pytest.mark.slow
def test_a_network_that_only_notes_something_down_is_trained(networks: Path) -> None:
    assert convolab.train("own.py:Notes", epochs=2, out="run").status == "finished"


@pytest.mark.slow
def test_a_network_that_ends_in_a_softmax_is_reported(run_cli, networks: Path) -> None:
    assert "gives probabilities, not logits" in run_cli("train", "own.py:Softmax", "--epochs", "1", "--out", "run").err


@pytest.mark.slow
def test_a_network_that_gives_nan_once_it_is_evaluated_is_not_called_random(run_cli, networks: Path) -> None:
    trained = run_cli("train", "own.py:Nan", "--epochs", "1", "--set", "data.validation=0", "--out", "run")
    assert "gives logits that are NaN or infinite" in trained.err
    refused = run_cli("predict", "run", "chelsea")
    assert refused.code == 2
    assert refused.err.startswith("convolab: the network gives logits that are NaN or infinite")
    assert refused.err.count("\n") == 1


def test_a_network_that_ends_the_program_is_one_line_and_no_success(run_cli, networks: Path) -> None:
    refused = run_cli("train", "own.py:Exit", "--out", "run")
    assert "SystemExit: 0 (own.py, line 60)" in refused.err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sys.exit()", "cannot import {folder}/leaves.py: SystemExit (leaves.py, line 5)"),
        (
            "def network(shape, classes):\n    sys.exit()",
            "the network 'leaves.py:network' cannot be built: SystemExit (",
        ),
        (
            "def network(shape, classes, width=1):\n    sys.exit(0)",
            "the network 'leaves.py:network' cannot be built: SystemExit: 0 (leaves.py, line 6)",
        ),
    ],
)
@pytest.mark.parametrize("command", ["train leaves.py:network --out run", "summary leaves.py:network --input 1x8x8"])
def test_an_exit_in_own_code_is_an_error_in_one_line_and_no_success(
    run_cli, networks: Path, source: str, words: str, command: str
) -> None:
    Path("leaves.py").write_text(f"import sys\n\nnetwork = print\n\n{source}\n")
    failed = run_cli(*command.split())
    assert failed.code == 2
    assert words.format(folder=networks) in failed.err
    assert not Path("run").exists()


def test_an_exit_in_the_forward_pass_is_one_line_wherever_a_network_is_used(run_cli, networks: Path) -> None:
    failed = run_cli("summary", "own.py:Exit", "--input", "1x8x8")
    assert failed.code == 2
    assert failed.err == "convolab: the network does not accept this input: SystemExit: 0 (own.py, line 60)\n"


def test_an_interruption_in_own_code_stays_one(networks: Path) -> None:
    Path("interrupted.py").write_text("def network(shape, classes):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        convolab.train("interrupted.py:network", out="run")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Sparse", "the network gives a sparse tensor: it must give a dense one, as .to_dense() does"),
        ("Counts", "the network gives numbers of type int64: it must give logits that are floating-point numbers"),
    ],
)
def test_logits_that_are_sparse_or_whole_numbers_are_refused_in_one_line(
    run_cli, networks: Path, name: str, words: str
) -> None:
    refused = run_cli("train", f"own.py:{name}", "--out", "run")
    assert refused.code == 2
    assert refused.err.splitlines()[-1] == f"convolab: {words}"


@pytest.mark.parametrize("where", ["import", "constructor", "forward"])
def test_own_code_that_sets_the_default_dtype_is_refused_and_the_dtype_is_as_before(networks: Path, where: str) -> None:
    setting = "torch.set_default_dtype(torch.float64)"
    Path("double.py").write_text(
        "import torch\n"
        f"{setting * (where == 'import')}\n"
        "class Network(torch.nn.Module):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        f"        {setting if where == 'constructor' else 'pass'}\n"
        "        self.head = torch.nn.Linear(64, classes)\n"
        "    def forward(self, x):\n"
        f"        {setting if where == 'forward' else 'pass'}\n"
        "        return self.head(x.flatten(1))\n"
    )
    with pytest.raises(convolab.LabError, match=r"it changes a setting of the whole process .*set_default_dtype"):
        convolab.train("double.py:Network", out="run")
    assert torch.get_default_dtype() == torch.float32
