"""Effective receptive fields: networks with a known offset, a small disc, and the cache."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_nets import classifier_of, randomize_batch_norms
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.localization import erf_offset as erf_offset_module
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS
from convolab.inspection.localization.dense import FullyConvolutional, make_fully_convolutional
from convolab.inspection.localization.erf_offset import erf_offset, measure_erf_offset, network_fingerprint
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.response import run_at_scale
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


class OnePixelCells(nn.Module):
    """Cells of 11 x 11 pixels, 8 pixels apart, that depend on a single pixel of their receptive field."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 11, stride=8, padding=5)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(10, 10)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        for channel in range(10):
            self.conv.weight.data[channel, :, row, column] = 1.0 + channel
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(torch.relu(self.conv(x) + 40)).flatten(1))


def one_pixel_fcn(row: int, column: int) -> FullyConvolutional:
    return make_fully_convolutional(classifier_of(OnePixelCells(row, column)))


@pytest.mark.slow
@pytest.mark.parametrize(("row", "column"), [(5, 5), (0, 10), (8, 3)])
def test_the_measured_offset_is_the_known_one(row: int, column: int) -> None:
    offset = measure_erf_offset(one_pixel_fcn(row, column))
    assert offset.reference == "rf-center"
    assert offset.mean == pytest.approx((row - 5, column - 5), abs=1e-6)
    assert offset.std == pytest.approx((0, 0), abs=1e-6)
    assert offset.rms_radius == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (61, 83)])
def test_only_the_alignment_by_erf_finds_a_small_disc_at_its_position(size: tuple[int, int], tmp_path: Path) -> None:
    fcn = one_pixel_fcn(8, 1)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    center = (8 * 3 + 3, 8 * 4 - 4)  # the pixel that cell (3, 4) depends on
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    image[:, (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= 4] = 255
    result = run_at_scale(fcn, image, InputScale(), "cell")
    erf_offset(fcn, tmp_path)
    row, column = divmod(int(result.response(9).argmax()), result.grid_shape[1])
    peaks = {}
    for kind in ALIGNMENT_KINDS:
        alignment = result.alignment(kind)
        (top, left), (down, across) = alignment.start, alignment.stride
        peaks[kind] = top + row * down, left + column * across
    assert peaks["erf"] == pytest.approx(center, abs=1e-6)
    assert peaks["rf-center"] == pytest.approx((24, 32), abs=1e-6)
    assert peaks["resize"] != pytest.approx(center, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["simple_convnet", "resnet_small"])
def test_the_erf_of_a_symmetrically_padded_network_is_near_the_center_of_its_receptive_field(net: str) -> None:
    offset = measure_erf_offset(
        make_fully_convolutional(classifier_of(randomize_batch_norms(build(net, (3, 32, 32), 10))))
    )
    assert all(abs(mean) < 1.5 for mean in offset.mean)
    assert offset.num_cells == 48


@pytest.mark.long
def test_the_erf_of_lite0_is_half_a_stride_before_the_center_of_its_receptive_field() -> None:
    offset = measure_erf_offset(make_fully_convolutional(pretrained("efficientnet_lite0")))
    assert all(-19 < mean < -11 for mean in offset.mean)


@pytest.mark.slow
def test_an_offset_is_measured_once_and_again_if_its_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[FullyConvolutional] = []
    measure = erf_offset_module.measure_erf_offset
    monkeypatch.setattr(erf_offset_module, "measure_erf_offset", lambda fcn: calls.append(fcn) or measure(fcn))
    first = erf_offset(one_pixel_fcn(0, 0), tmp_path)
    assert erf_offset(one_pixel_fcn(0, 0), tmp_path) == first
    assert len(calls) == 1
    (file,) = tmp_path.iterdir()
    for damaged in ("{", "[]", json.dumps({"mean": 1})):
        file.write_text(damaged)
        assert erf_offset(one_pixel_fcn(0, 0), tmp_path) == first
    assert len(calls) == 4


@pytest.mark.slow
def test_offsets_are_cached_in_the_folder_of_the_variable_convolab_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    erf_offset(one_pixel_fcn(3, 3))
    assert len(list((tmp_path / "cache" / "erf_offsets").glob("*.json"))) == 1


@pytest.mark.slow
def test_networks_with_different_weights_have_different_offsets(tmp_path: Path) -> None:
    one, other = one_pixel_fcn(0, 0), one_pixel_fcn(0, 1)
    assert erf_offset(one, tmp_path).mean != erf_offset(other, tmp_path).mean
    assert len(list(tmp_path.iterdir())) == 2


def test_the_code_of_a_network_is_part_of_the_name_of_its_cached_offset(tmp_path: Path) -> None:
    text = "import torch\nfrom helper import OFFSET\nfrom torch import nn\n\n\nclass Net(nn.Module):\n" + (
        "    def __init__(self, shape, classes):\n        super().__init__()\n"
        "        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)\n\n"
        "    def forward(self, x):\n"
        "        return self.linear((self.conv(x) + OFFSET).mean((2, 3)))\n"
    )
    fingerprints = []
    for version, (edit, helper) in enumerate([("", "OFFSET = 0"), ("", "OFFSET = 1"), ("# edited", "OFFSET = 1")]):
        folder = tmp_path / str(version)
        folder.mkdir()
        (folder / "net.py").write_text(text + edit)
        (folder / "helper.py").write_text(helper)
        network = build(f"{folder}/net.py:Net", (3, 32, 32), 10)
        fingerprints.append(network_fingerprint(make_fully_convolutional(classifier_of(network))))
    assert len({*fingerprints, None}) == 4


@pytest.mark.slow
def test_an_offset_of_code_without_source_is_not_kept(tmp_path: Path) -> None:
    cell: dict[str, Any] = {"Base": OnePixelCells, "__name__": "__main__"}  # of a notebook
    exec("class Net(Base):\n    def forward(self, x):\n        return Base.forward(self, x)", cell)
    fcn = make_fully_convolutional(classifier_of(cell["Net"](0, 0)))
    assert network_fingerprint(fcn) is None
    erf_offset(fcn, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_offset_of_a_deleted_network_is_not_kept_in_memory(tmp_path: Path) -> None:
    fcn = one_pixel_fcn(0, 0)
    erf_offset(fcn, tmp_path)
    before = len(erf_offset_module._offsets)
    del fcn
    gc.collect()
    assert len(erf_offset_module._offsets) < before


@pytest.mark.slow
def test_the_offset_is_measured_even_if_no_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert erf_offset(one_pixel_fcn(0, 0), tmp_path / "file").mean == pytest.approx((-5, -5), abs=1e-6)


def test_rf_center_is_refused_if_the_receptive_fields_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullyConvolutional, "rf_grid", lambda self, size, cells: None)
    result = run_at_scale(one_pixel_fcn(5, 5), torch.zeros(3, 64, 64, dtype=torch.uint8), InputScale(), "cell")
    with pytest.raises(LabError, match="choose the alignment erf or resize"):
        result.alignment("rf-center")


def test_an_offset_from_receptive_field_centers_is_not_added_where_they_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fcn = one_pixel_fcn(5, 5)
    offset = measure_erf_offset(fcn, [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))])
    assert offset.reference == "rf-center"
    monkeypatch.setattr(erf_offset_module, "measure_erf_offset", lambda fcn: offset)
    monkeypatch.setattr(erf_offset_module, "network_fingerprint", lambda fcn: None)
    monkeypatch.setattr(FullyConvolutional, "rf_grid", lambda self, size, cells: None)
    result = run_at_scale(fcn, torch.zeros(3, 64, 64, dtype=torch.uint8), InputScale(), "cell")
    with pytest.raises(LabError, match="are not known: choose the alignment resize"):
        result.alignment("erf")
    assert result.alignment("resize").kind == "resize"


@pytest.mark.slow
def test_a_network_that_ignores_the_image_is_refused() -> None:
    class Constant(OnePixelCells):
        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.pool(torch.relu(self.conv(x) - 1e9)).flatten(1))

    with pytest.raises(LabError, match="there is nothing to align"):
        measure_erf_offset(make_fully_convolutional(classifier_of(Constant(5, 5))))
