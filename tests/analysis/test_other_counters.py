"""Running other counters: wrong names, tools that are not installed, and tools that fail."""

import pytest
import torch
from torch import Tensor, nn

from convolab.analysis import other_counters
from convolab.analysis.other_counters import Tally, count_with, find_differences
from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError


def test_for_a_tool_that_is_not_installed_the_problem_says_how_to_install_it(monkeypatch) -> None:
    def version(name: str) -> str:
        raise other_counters.PackageNotFoundError(name)

    monkeypatch.setattr(other_counters, "version", version)
    (count,) = count_with(["thop"], nn.Linear(3, 2), (1, 3), {"Linear": 6})
    assert count.macs is None
    assert count.problem == "not installed: pip install 'convolab[counters]'"


def test_a_tool_that_fails_is_reported_in_one_line_and_the_others_run() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.jit.is_tracing():  # as fvcore does
                raise RuntimeError("no traces\nplease")
            return x

    fvcore, torchinfo = summarize_network(
        nn.Sequential(nn.Linear(3, 2), Net()), (3,), beside=["fvcore", "torchinfo"]
    ).other_counts
    assert fvcore.macs is None
    assert fvcore.problem == "could not count this network: no traces"
    assert torchinfo.macs == 8


def test_an_unknown_tool_is_refused_before_any_work() -> None:
    with pytest.raises(LabError, match="did you mean 'fvcore'"):
        summarize_network(nn.Linear(3, 2), (3,), beside=["fvcor"])


def test_a_network_without_weights_is_refused_and_a_function_that_builds_it_is_called() -> None:
    with torch.device("meta"):
        net = nn.Linear(3, 2)
    with pytest.raises(LabError, match="with weights"):
        summarize_network(net, (3,), beside=["thop"])
    assert summarize_network(lambda: nn.Linear(3, 2), (3,), beside=["thop"]).other_counts[0].macs == 6


@pytest.mark.slow
def test_the_network_and_the_batch_are_those_of_the_summary() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    names = set(net.state_dict())
    counts = summarize_network(net, (3, 8, 8), batch_size=2, beside=list(other_counters.COUNTERS)).other_counts
    macs = 2 * 36 * 4 * 27
    elements = 2 * 36 * 4
    assert [count.macs - macs for count in counts] == [2 * elements, elements + 2 * 8, 4 * elements, 3 * elements]
    assert set(net.state_dict()) == names
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_differences_that_a_tool_does_not_report_per_layer_are_totals() -> None:
    assert find_differences(Tally(10), {"Linear": 6}) == (("in total", 4),)
    assert find_differences(Tally(6), {"Linear": 6}) == ()
    assert find_differences(Tally(7, by_class={"Linear": 6}), {"Linear": 6, "matmul": 3}) == (
        ("matmul", -3),
        ("all other", 1),
    )
