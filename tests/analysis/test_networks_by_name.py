"""Networks by name are summarized without their weights, or with them where their constructors read values."""

from pathlib import Path

import pytest

from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError
from convolab.models.registry import trust_named
from convolab.models.resolve import resolve_model

READS_VALUES = """
import torch
from torch import nn


def Net(shape, classes):
    rates = [{read} for rate in torch.linspace(0, 0.1, 2)]
    return nn.Sequential(nn.Flatten(), nn.Dropout(rates[1]), nn.Linear(shape[1] * shape[2], classes))
"""


@pytest.mark.parametrize("read", ["rate.item()", "float(rate.numpy())"])
def test_a_network_by_name_whose_constructor_reads_values_is_built_with_its_weights(tmp_path: Path, read: str) -> None:
    name = f"{tmp_path / 'net.py'}:Net"
    (tmp_path / "net.py").write_text(READS_VALUES.format(read=read))
    trust_named(name)
    cost = summarize_network(resolve_model(name, (1, 4, 5), 3).build, (1, 4, 5))
    assert cost.macs == 60
    assert "the network was built with its weights, because its constructor reads tensor values" in cost.notes


def test_a_network_by_name_that_cannot_be_built_is_not_built_a_second_time(tmp_path: Path) -> None:
    name = f"{tmp_path / 'net.py'}:Net"
    (tmp_path / "net.py").write_text(
        "built = []\n\n\ndef Net(shape, classes):\n    built.append(1)\n    return built[1]\n"
    )
    trust_named(name)
    with pytest.raises(LabError, match="cannot be built: IndexError"):
        summarize_network(resolve_model(name, (1, 4, 5), 3).build, (1, 4, 5))
