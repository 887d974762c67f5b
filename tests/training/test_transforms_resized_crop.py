"""Random resized crops: the boxes are distributed as torchvision's, and each is resized as torchvision resizes it."""

import math

import pytest
import torch
from scipy.stats import chisquare, kstest
from torchvision.transforms import RandomResizedCrop as Oracle
from torchvision.transforms.functional import resized_crop

from convolab.core.rng import make_generator
from convolab.training.transforms import RandomResizedCrop


def boxes(n: int, h: int, w: int, min_area: float = 0.35) -> torch.Tensor:
    return RandomResizedCrop(min_area).boxes(n, h, w, make_generator(0))


@pytest.mark.parametrize(("h", "w"), [(32, 32), (24, 40), (8, 9)])
def test_each_image_is_its_box_resized_as_torchvision_does(h: int, w: int) -> None:
    pixels = torch.rand(20, 3, h, w, generator=torch.Generator().manual_seed(0))
    result = RandomResizedCrop(0.1)(pixels, make_generator(0))
    for image, (top, left, height, width), expected in zip(pixels, boxes(20, h, w, 0.1).tolist(), result, strict=True):
        oracle = resized_crop(image, top, left, height, width, [h, w], antialias=True)
        torch.testing.assert_close(expected, oracle, atol=1e-5, rtol=0)


def test_area_ratio_and_place_are_uniform() -> None:
    side = 4000  # so large that rounding to pixels and boxes that do not fit hardly matter
    top, left, height, width = boxes(4000, side, side, 0.08).double().unbind(1)
    ratio = (width / height).log() / math.log(4 / 3)
    small = height * width < 0.5 * side**2  # these always fit
    assert kstest(ratio[small], "uniform", (-1, 2)).pvalue > 1e-3
    assert kstest((height * width)[small] / side**2, "uniform", (0.08, 0.42)).pvalue > 1e-3
    for start, length in ((top, height), (left, width)):
        assert chisquare(((start + 0.5) / (side - length + 1) * 10).long().clamp(0, 9).bincount()).pvalue > 1e-3


@pytest.mark.slow
def test_boxes_that_may_not_fit_are_distributed_as_torchvisions() -> None:
    image = torch.empty(3, 40, 60)
    torch.manual_seed(0)
    oracle = torch.tensor([Oracle.get_params(image, [0.35, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    ours = boxes(4000, 40, 60)
    for column in range(4):
        assert kstest(ours[:, column].numpy(), oracle[:, column].numpy()).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= 40).all()
    assert (ours[:, 1] + ours[:, 3] <= 60).all()


def test_where_no_box_fits_it_is_the_largest_in_the_center() -> None:
    assert boxes(3, 8, 40, 1.0).tolist() == [[0, 14, 8, 11]] * 3  # torchvision: int((40 - 11) / 2)


def test_the_draw_is_a_function_of_the_generator_alone() -> None:
    pixels = torch.rand(6, 3, 16, 16)
    first, again, other = (RandomResizedCrop()(pixels, make_generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
