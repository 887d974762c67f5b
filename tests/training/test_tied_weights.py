"""A network whose layers share a weight is a network like all others: saved, resumed, tested, loaded and averaged."""

from pathlib import Path

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import own_code_folder
from support.run_contents import run_contents
from torch import nn

from convolab.data.splits import DatasetSplits
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.recipe import Training
from convolab.training.run import Run
from convolab.training.trainer import Trainer

SOURCE = """
from torch import nn


class Tied(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, classes)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())
"""
OPTIMIZERS = [
    {"optimizer.momentum": 0.9, "training.ema": 0.9},
    {"optimizer.name": "adam", "optimizer.lr": 0.01},
    {"optimizer.name": "AdamW", "optimizer.lr": 0.01},
]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["averaged", "adam", "of_torch"])
def test_a_run_of_a_network_with_tied_weights_resumes_bit_for_bit_and_is_tested(
    optimizer: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: DatasetSplits
) -> None:
    recipe = own_code_folder(tmp_path, monkeypatch, "tied.py", SOURCE)(
        {"model.name": "tied.py:Tied", "training.epochs": 2, **optimizer}
    )
    whole = Run.start(recipe, digits, "whole")
    Run.start(recipe, digits, "stopped", callbacks=stop_after(8))
    assert run_contents(Run("stopped").resume(digits).folder) == run_contents(whole.folder)
    assert Run("stopped").test(splits=digits).count == len(digits.test)
    network = Run("stopped").net().network
    assert network.first.weight is network.second.weight


def test_tensors_that_share_memory_are_written_and_read_back(tmp_path: Path) -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    tensors = {"weight": weight, "again": weight, "transposed": weight.T, "row": weight[1]}
    write_tensors(tmp_path / "shared.safetensors", tensors, {})
    stored, _ = read_tensors(tmp_path / "shared.safetensors")
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())


def test_a_tied_weight_is_averaged_once_in_a_step(digits: DatasetSplits) -> None:
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.Linear(64, 10))
    before = first.weight.detach().clone()
    trainer = Trainer(network, digits.train, training=Training(epochs=1, ema=0.9))
    next(trainer.iter_epochs(stop_after(1)), None)
    assert not torch.equal(first.weight, before)
    expected = before.lerp(first.weight.detach(), 0.9)  # the decay begins with 1 / 10
    assert torch.equal(trainer.eval_net[1].weight, expected)
