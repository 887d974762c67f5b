"""Placement: networks whose true offset is known, an object moved by one stride, and a small disc."""

import json

import pytest
import torch
from support.small_nets import wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization import alignment
from convolab.inspection.localization.alignment import (
    Alignment,
    align_cells,
    erf_offset,
    measure_erf_offset,
    parse_alignment,
    resize_alignment,
    rf_center_alignment,
)
from convolab.inspection.localization.dense import FullyConvolutional, make_fully_convolutional
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


class Peeking(nn.Module):
    """Cells of 11 x 11 pixels, a step of 8 apart, that look at nothing but one place in their field."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 10, 11, stride=8, padding=5)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(10, 10)
        nn.init.zeros_(self.look.weight)
        nn.init.zeros_(self.look.bias)
        for channel in range(10):
            self.look.weight.data[channel, :, row, column] = 1.0 + channel
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(torch.relu(self.look(x) + 40)).flatten(1))


@pytest.mark.parametrize(("row", "column"), [(5, 5), (0, 10), (8, 3)])
def test_the_displacement_of_a_made_network_is_the_one_it_was_made_with(row: int, column: int) -> None:
    everywhere = make_fully_convolutional(wrapped(Peeking(row, column)))
    found = measure_erf_offset(everywhere)
    assert found.reference == "geometric"
    assert found.mean == pytest.approx((row - 5, column - 5), abs=1e-6)
    assert found.std == pytest.approx((0, 0), abs=1e-6)
    assert found.rms_radius == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [(64, 64), (61, 83)])
def test_a_small_disc_is_placed_where_it_is_only_by_where_the_network_looks(size: tuple[int, int], tmp_path) -> None:
    everywhere = make_fully_convolutional(wrapped(Peeking(8, 1)))
    picture = torch.zeros(1, 3, *size)
    centre = (8 * 3 + 3, 8 * 4 - 4)  # what cell (3, 4) peeks at
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    picture[:, :, (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= 4] = 1.0
    with torch.no_grad():
        response = everywhere.cell_scores(everywhere.forward_features(picture), [9])[0, 0]
    erf_offset(everywhere, tmp_path)
    found = {kind: placed(everywhere, kind, size, response) for kind in alignment.ALIGNMENT_KINDS}
    assert found["effective"] == pytest.approx(centre, abs=1e-6)
    assert found["geometric"] == pytest.approx((24, 32), abs=1e-6)
    assert found["stretched"] != pytest.approx(centre, abs=2)


def placed(everywhere: FullyConvolutional, kind: str, size: tuple[int, int], response: Tensor) -> tuple[float, float]:
    return align_cells(everywhere, kind, size, tuple(response.shape), "cells").peak_position(response, size)


@pytest.mark.parametrize("net", ["simple_convnet", "resnet_small"])
def test_a_symmetrically_padded_network_looks_at_about_its_geometric_middle(net: str) -> None:
    from lens_nets import trained

    found = measure_erf_offset(make_fully_convolutional(wrapped(trained(build(net, (3, 32, 32), 10)))))
    assert all(abs(mean) < 1.5 for mean in found.mean)
    assert found.num_cells == 48


def test_lite0_looks_half_a_stride_before_its_geometric_middle_as_if_it_were_centred() -> None:
    found = measure_erf_offset(make_fully_convolutional(pretrained("efficientnet_lite0")))
    assert all(-19 < mean < -11 for mean in found.mean)


def test_an_object_that_moves_by_one_stride_moves_the_response_by_one_cell() -> None:
    everywhere = make_fully_convolutional(wrapped(build("simple_convnet", (3, 32, 32), 10)))
    responses = []
    for shift in (0, 8):
        picture = torch.full((1, 3, 96, 96), 0.4)
        picture[:, :, 40:52, 40 + shift : 52 + shift] = torch.tensor([0.9, 0.1, 0.5]).view(3, 1, 1)
        with torch.no_grad():
            responses.append(everywhere.cell_scores(everywhere.forward_features(picture), [0])[0, 0])
    assert torch.allclose(responses[0][2:-2, 2:-3], responses[1][2:-2, 3:-2], atol=1e-5)
    before, after = (
        rf_center_alignment(everywhere, (96, 96), "cells").peak_position(r.abs(), (96, 96)) for r in responses
    )
    assert (after[0] - before[0], after[1] - before[1]) == (0, 8)


def test_stretching_spreads_cells_evenly_and_windows_by_their_middles() -> None:
    everywhere = make_fully_convolutional(wrapped(build("simple_convnet", (3, 32, 32), 10)))
    assert resize_alignment(everywhere, (64, 96), (8, 12), "cells") == Alignment("stretched", (3.5, 3.5), (8.0, 8.0))
    assert resize_alignment(everywhere, (64, 96), (5, 9), "windows") == Alignment("stretched", (15.5, 15.5), (8.0, 8.0))
    assert rf_center_alignment(everywhere, (64, 96), "windows") == Alignment("geometric", (15.5, 15.5), (8.0, 8.0))


def test_a_map_is_laid_linearly_between_cells_and_scaled_by_pixels_borders() -> None:
    where = Alignment("geometric", (3.5, 3.5), (8.0, 8.0))
    heat = where.upsample_to_image(torch.tensor([[0.0, 8.0], [0.0, 8.0]]), (16, 16))
    assert torch.allclose(heat[5], (torch.arange(16.0) - 3.5).clamp(0, 8), atol=1e-5)
    assert where.scaled((2.0, 0.5)) == Alignment("geometric", (7.5, 1.5), (16.0, 4.0))
    assert where.cell_borders((2, 3)) == ((8.0,), (8.0, 16.0))
    assert where.peak_position(torch.tensor([[0.0, 1.0]]), (16, 10)) == (3.5, 9.0)


def test_a_single_cell_covers_the_whole_picture() -> None:
    heat = Alignment("stretched", (1.5, 2.5), (4.0, 6.0)).upsample_to_image(torch.tensor([[7.0]]), (4, 6))
    assert heat.shape == (4, 6)
    assert torch.all(heat == 7.0)


def test_a_displacement_is_measured_once_and_a_damaged_note_of_it_anew(tmp_path, monkeypatch) -> None:
    calls, really = [], alignment.measure_erf_offset
    monkeypatch.setattr(alignment, "measure", lambda d: calls.append(d) or really(d))
    first = erf_offset(make_fully_convolutional(wrapped(Peeking(0, 0))), tmp_path)
    assert erf_offset(make_fully_convolutional(wrapped(Peeking(0, 0))), tmp_path) == first
    assert len(calls) == 1
    (file,) = tmp_path.iterdir()
    for broken in ("{", "[]", json.dumps({"mean": 1})):
        file.write_text(broken)
        assert erf_offset(make_fully_convolutional(wrapped(Peeking(0, 0))), tmp_path) == first
    assert len(calls) == 4


def test_other_weights_are_another_network(tmp_path) -> None:
    one, other = make_fully_convolutional(wrapped(Peeking(0, 0))), make_fully_convolutional(wrapped(Peeking(0, 1)))
    assert erf_offset(one, tmp_path).mean != erf_offset(other, tmp_path).mean
    assert len(list(tmp_path.iterdir())) == 2


def test_where_nothing_can_be_kept_it_is_measured_all_the_same(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert erf_offset(make_fully_convolutional(wrapped(Peeking(0, 0))), tmp_path / "file").mean == pytest.approx(
        (-5, -5), abs=1e-6
    )


def test_an_unknown_placement_is_one_line() -> None:
    with pytest.raises(LabError, match="did you mean 'effective'"):
        parse_alignment("efective")
