"""Effective receptive fields: networks whose true offset is known, a small disc, and the cache."""

import gc
import json
from pathlib import Path

import pytest
import torch
from support.small_nets import trained, wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization import erf_offset as module
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS
from convolab.inspection.localization.dense import FullyConvolutional, make_fully_convolutional
from convolab.inspection.localization.erf_offset import erf_offset, measure_erf_offset
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.response import run_at_scale
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


class Peeking(nn.Module):
    """Cells of 11 x 11 pixels, 8 pixels apart, that depend on a single pixel of their receptive field."""

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


def peeking(row: int, column: int) -> FullyConvolutional:
    return make_fully_convolutional(wrapped(Peeking(row, column)))


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), [(5, 5), (0, 10), (8, 3)])
def test_the_offset_of_a_made_network_is_the_one_it_was_made_with(row: int, column: int) -> None:
    offset = measure_erf_offset(peeking(row, column))
    assert offset.reference == "rf-center"
    assert offset.mean == pytest.approx((row - 5, column - 5), abs=1e-6)
    assert offset.std == pytest.approx((0, 0), abs=1e-6)
    assert offset.rms_radius == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (61, 83)])
def test_a_small_disc_is_found_where_it_is_only_by_where_the_network_looks(
    size: tuple[int, int], tmp_path: Path
) -> None:
    fcn = peeking(8, 1)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    center = (8 * 3 + 3, 8 * 4 - 4)  # the pixel that cell (3, 4) depends on
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    image[:, (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= 4] = 255
    result = run_at_scale(fcn, image, InputScale(), "cell")
    erf_offset(fcn, tmp_path)
    peaks = {kind: result.alignment(kind).peak_position(result.response(9), size) for kind in ALIGNMENT_KINDS}
    assert peaks["erf"] == pytest.approx(center, abs=1e-6)
    assert peaks["rf-center"] == pytest.approx((24, 32), abs=1e-6)
    assert peaks["resize"] != pytest.approx(center, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["simple_convnet", "resnet_small"])
def test_a_symmetrically_padded_network_looks_at_about_its_receptive_field_center(net: str) -> None:
    offset = measure_erf_offset(make_fully_convolutional(wrapped(trained(build(net, (3, 32, 32), 10)))))
    assert all(abs(mean) < 1.5 for mean in offset.mean)
    assert offset.num_cells == 48


@pytest.mark.slow
def test_lite0_looks_half_a_stride_before_its_receptive_field_center_as_if_it_were_centered() -> None:
    offset = measure_erf_offset(make_fully_convolutional(pretrained("efficientnet_lite0")))
    assert all(-19 < mean < -11 for mean in offset.mean)


@pytest.mark.slow
def test_an_offset_is_measured_once_and_again_where_its_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[FullyConvolutional] = []
    measure = module.measure_erf_offset
    monkeypatch.setattr(module, "measure_erf_offset", lambda fcn: calls.append(fcn) or measure(fcn))
    first = erf_offset(peeking(0, 0), tmp_path)
    assert erf_offset(peeking(0, 0), tmp_path) == first
    assert len(calls) == 1
    (file,) = tmp_path.iterdir()
    for damaged in ("{", "[]", json.dumps({"mean": 1})):
        file.write_text(damaged)
        assert erf_offset(peeking(0, 0), tmp_path) == first
    assert len(calls) == 4


@pytest.mark.slow
def test_offsets_are_kept_in_the_folder_that_convolab_data_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    erf_offset(peeking(3, 3))
    assert len(list((tmp_path / "cache" / "erf_offsets").glob("*.json"))) == 1


@pytest.mark.slow
def test_different_weights_are_a_different_network(tmp_path: Path) -> None:
    one, other = peeking(0, 0), peeking(0, 1)
    assert erf_offset(one, tmp_path).mean != erf_offset(other, tmp_path).mean
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_the_offset_of_a_network_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    fcn = peeking(0, 0)
    erf_offset(fcn, tmp_path)
    before = len(module._offsets)
    del fcn
    gc.collect()
    assert len(module._offsets) < before


@pytest.mark.slow
def test_where_no_file_can_be_written_the_offset_is_measured_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert erf_offset(peeking(0, 0), tmp_path / "file").mean == pytest.approx((-5, -5), abs=1e-6)


def test_rf_center_is_refused_where_the_receptive_fields_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullyConvolutional, "rf_grid", lambda self, size: None)
    result = run_at_scale(peeking(5, 5), torch.zeros(3, 64, 64, dtype=torch.uint8), InputScale(), "cell")
    with pytest.raises(LabError, match="choose the alignment erf or resize"):
        result.alignment("rf-center")


@pytest.mark.slow
def test_a_network_that_ignores_the_image_is_refused() -> None:
    class Constant(Peeking):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.pool(torch.relu(self.look(x) - 1e9)).flatten(1))

    with pytest.raises(LabError, match="there is nothing to align"):
        measure_erf_offset(make_fully_convolutional(wrapped(Constant(5, 5))))
