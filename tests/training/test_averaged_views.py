"""Test-time views: their average is what its definition says, and a test records it beside the plain result."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import convolab
from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.reports.paper import run_paper_table
from convolab.training.averaged_views import AveragedViews

RECIPE = {"model": {"name": "shallow_net"}, "training": {"epochs": 1}, "data": {"limit": 200}}


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 3, 2))


def test_two_views_are_the_image_and_its_mirror_image(net: nn.Module) -> None:
    pixels = torch.rand(5, 3, 7, 5, generator=make_generator(0))
    mirrored = torch.from_numpy(pixels.numpy()[..., ::-1].copy())
    torch.testing.assert_close(AveragedViews(net, 2)(pixels), (net(pixels) + net(mirrored)) / 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_six_views_are_weighted_as_published(net: nn.Module, memory_format: torch.memory_format) -> None:
    pixels = torch.rand(5, 3, 7, 5, generator=make_generator(0)).contiguous(memory_format=memory_format)
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    expected = torch.zeros(5, 2)
    for y, x, weight in ((1, 1, 0.5), (0, 0, 0.25), (2, 2, 0.25)):
        view = padded[:, :, y : y + 7, x : x + 5]
        for side in (view, view[..., ::-1]):
            expected += weight / 2 * net(torch.from_numpy(side.copy()))
    torch.testing.assert_close(AveragedViews(net, 6)(pixels), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_view_has_the_layout_of_the_pixels_because_convolutions_of_another_are_slow(
    net: nn.Module, memory_format: torch.memory_format
) -> None:
    layouts = []
    net.register_forward_pre_hook(
        lambda _net, given: layouts.append(given[0].is_contiguous(memory_format=memory_format))
    )
    AveragedViews(net, 6)(torch.rand(5, 3, 7, 5).contiguous(memory_format=memory_format))
    assert layouts == 6 * [True]


@pytest.mark.slow
def test_the_test_records_both_and_the_plain_result_is_as_without(tmp_path: Path) -> None:
    plain = convolab.train(convolab.Recipe.from_dict(RECIPE), out=tmp_path / "plain").test()
    record = convolab.train(
        convolab.Recipe.from_dict({**RECIPE, "metrics": {"test_views": 6}}), out=tmp_path / "views"
    ).test()
    assert (plain.with_views, record.correct, record.loss) == (None, plain.correct, plain.loss)
    assert record.with_views is not None
    assert record.with_views.views == 6
    assert record.with_views.accuracy == record.with_views.correct / record.count
    assert record.with_views.loss != record.loss
    assert f", with 6 views {100 * record.with_views.accuracy:.2f} %; epoch 1)" in repr(record)
    assert "views" not in repr(plain)
    stored = json.loads((tmp_path / "views" / "test.json").read_text())["with_views"]
    assert stored["correct"] == record.with_views.correct
    assert convolab.Run(tmp_path / "views").test() == record
    caption = run_paper_table(convolab.Run(tmp_path / "views"))[0]
    assert f"averaged over 6 views of each image {100 * record.with_views.accuracy:.2f} % (" in caption


@pytest.mark.parametrize("views", [1, 3, -2])
def test_another_number_of_views_is_refused(views: int) -> None:
    with pytest.raises(LabError, match=r"metrics\.test_views"):
        convolab.Recipe.from_dict({"metrics": {"test_views": views}})
