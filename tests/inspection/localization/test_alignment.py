"""Alignment: cells, windows and the pixels that they map to."""

import pytest
import torch
from support.small_nets import classifier_of

from convolab.core.errors import LabError
from convolab.inspection.localization.alignment import (
    ALIGNMENT_KINDS,
    Alignment,
    parse_alignment,
    resize_alignment,
    rf_center_alignment,
)
from convolab.inspection.localization.dense import make_fully_convolutional
from convolab.models.registry import build


def test_an_object_that_moves_by_one_stride_moves_the_response_by_one_cell() -> None:
    fcn = make_fully_convolutional(classifier_of(build("simple_convnet", (3, 32, 32), 10)))
    responses = []
    for shift in (0, 8):
        image = torch.full((1, 3, 96, 96), 0.4)
        image[:, :, 40:52, 40 + shift : 52 + shift] = torch.tensor([0.9, 0.1, 0.5]).view(3, 1, 1)
        with torch.no_grad():
            responses.append(fcn.cell_scores(fcn.forward_features(image), [0])[0, 0])
    assert torch.allclose(responses[0][2:-2, 2:-3], responses[1][2:-2, 3:-2], atol=1e-5)
    (row, column), moved = (divmod(int(response.abs().argmax()), response.shape[1]) for response in responses)
    assert moved == (row, column + 1)
    assert rf_center_alignment(fcn, (96, 96), (12, 12), "cell").stride == (8.0, 8.0)


def test_resizing_spreads_cells_evenly_and_windows_by_their_centers() -> None:
    fcn = make_fully_convolutional(classifier_of(build("simple_convnet", (3, 32, 32), 10)))
    assert resize_alignment(fcn, (64, 96), (8, 12), "cell") == Alignment("resize", (3.5, 3.5), (8.0, 8.0))
    assert resize_alignment(fcn, (64, 96), (5, 9), "window") == Alignment("resize", (15.5, 15.5), (8.0, 8.0))
    assert rf_center_alignment(fcn, (64, 96), (5, 9), "window") == Alignment("rf-center", (15.5, 15.5), (8.0, 8.0))


def test_a_map_is_upsampled_linearly_between_cells_and_scaled_by_pixel_borders() -> None:
    alignment = Alignment("rf-center", (3.5, 3.5), (8.0, 8.0))
    heatmap = alignment.upsample_to_image(torch.tensor([[0.0, 8.0], [0.0, 8.0]]), (16, 16))
    assert torch.allclose(heatmap[5], (torch.arange(16.0) - 3.5).clamp(0, 8), atol=1e-5)
    assert alignment.scaled((2.0, 0.5)) == Alignment("rf-center", (7.5, 1.5), (16.0, 4.0))
    assert alignment.shifted((1.0, -2.0), "erf") == Alignment("erf", (4.5, 1.5), (8.0, 8.0))
    assert alignment.cell_borders((2, 3)) == ((8.0,), (8.0, 16.0))


def test_a_single_cell_covers_the_whole_image() -> None:
    heatmap = Alignment("resize", (1.5, 2.5), (4.0, 6.0)).upsample_to_image(torch.tensor([[7.0]]), (4, 6))
    assert heatmap.shape == (4, 6)
    assert torch.all(heatmap == 7.0)


@pytest.mark.parametrize("kind", ALIGNMENT_KINDS)
def test_each_alignment_is_parsed_from_its_own_name(kind: str) -> None:
    assert parse_alignment(kind) == kind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rf-centre", "did you mean 'rf-center'"),
        ("effective", "alignment 'effective' is now called 'erf'"),
        ("geometric", "alignment 'geometric' is now called 'rf-center'"),
        ("stretched", "alignment 'stretched' is now called 'resize'"),
    ],
)
def test_an_unknown_or_retired_alignment_gives_a_one_line_error(name: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        parse_alignment(name)
