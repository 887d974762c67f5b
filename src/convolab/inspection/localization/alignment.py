"""Where on a picture the cells of a response lie: by where the network really looks, by geometry, or by stretching the map.

Geometry puts a cell in the middle of all pixels that it can depend on. A trained network need not look there: with padding on one
side, as TensorFlow pads, networks learn to be centred nevertheless. So it is measured where the gradient of a cell has its energy
(the effective receptive field, Luo et al. 2016, arXiv:1701.04128), once a network, as a displacement from geometry: by translation it
is the same for every inner cell and for pictures of every size.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.core.files import read_json, write_json
from convolab.data import image_io
from convolab.inspection.localization.dense import FullyConvolutional, Granularity
from convolab.models.classifier import frozen_eval

AlignmentKind = Literal["effective", "geometric", "stretched"]
ALIGNMENT_KINDS: tuple[AlignmentKind, ...] = get_args(AlignmentKind)
CALIBRATION_IMAGES = (
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle_left",
    "flower",
    "china",
)  # what a displacement is measured on
INNER = (0.4, 0.6)  # the cells that are asked, along each axis: away from the border, which cuts fields off
CACHE_DIR = Path("~/.cache/convolab/placement")  # where displacements are kept
CACHE_VERSION = 1  # of what is cached: to be raised when the measurement changes


@dataclass(frozen=True)
class Alignment:
    """Cell (i, j) lies at start + (i, j) * stride: rows, columns, in the picture's pixels, whose middles are whole numbers."""

    kind: AlignmentKind
    start: tuple[float, float]
    stride: tuple[float, float]

    def upsample_to_image(self, response: Float[Tensor, "rows columns"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """A response at every pixel of a picture, linear between its cells and constant beyond them.

        >>> Placement("geometric", (0.0, 1.0), (1.0, 2.0)).lay(torch.tensor([[0.0, 8.0]]), (1, 5))
        tensor([[0., 0., 4., 8., 8.]])
        """
        cells, grid_coordinates = response.shape, []
        for axis in range(2):
            index = (torch.arange(size[axis], dtype=torch.float64) - self.start[axis]) / self.stride[axis]
            grid_coordinates.append(
                2 * index / max(cells[axis] - 1, 1) - 1
            )  # from -1 at the first cell's middle to 1 at the last one's
        grid = torch.stack(
            [grid_coordinates[1].expand(size[0], -1), grid_coordinates[0][:, None].expand(-1, size[1])], dim=-1
        )[None]
        upsampled = F.grid_sample(
            response[None, None].double(), grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return upsampled[0, 0].float()

    def peak_position(self, response: Float[Tensor, "rows columns"], size: tuple[int, int]) -> tuple[float, float]:
        """Row and column of the picture where the strongest cell lies, at the border if it lies beyond."""
        cell = divmod(int(response.argmax()), response.shape[1])
        return tuple(min(max(self.start[k] + cell[k] * self.stride[k], 0.0), size[k] - 1.0) for k in range(2))

    def scaled(self, factor: tuple[float, float]) -> "Alignment":
        """The same places on a picture `factor` times as large: pixels' borders, not their middles, grow by it."""
        start = tuple((s + 0.5) * f - 0.5 for s, f in zip(self.start, factor, strict=True))
        return Alignment(self.kind, start, tuple(s * f for s, f in zip(self.stride, factor, strict=True)))

    def cell_borders(self, cells: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where one cell's part of the picture ends and the next one's begins: rows, columns, as borders of pixels."""
        return tuple(
            tuple(start + (i + 0.5) * stride + 0.5 for i in range(count - 1))
            for start, stride, count in zip(self.start, self.stride, cells, strict=True)
        )


@dataclass(frozen=True)
class ErfOffset:
    """By how much the middle of a cell's gradient energy lies off its geometric centre, in pixels: rows, columns."""

    mean: tuple[float, float]
    std: tuple[float, float]  # standard deviation over cells and pictures
    rms_radius: float  # root mean square distance of the energy from its middle: how far a cell looks, in pixels
    num_cells: int  # how many were asked
    image_size: tuple[int, int]  # of the pictures that they were asked on
    reference: Literal["geometric", "stretched"]  # what it is counted from: stretched only where geometry is not known


def parse_alignment(word: str) -> AlignmentKind:
    """
    >>> find_placement("effective")
    'effective'
    """
    require(word in ALIGNMENT_KINDS, f"there is no placement '{word}': {suggest(word, ALIGNMENT_KINDS)}")
    return word


def align_cells(
    fcn: FullyConvolutional,
    kind: AlignmentKind,
    size: tuple[int, int],
    cells: tuple[int, int],
    granularity: Granularity,
) -> Alignment:
    """Where the cells of an answer `over` cells or windows lie on a picture of this size; `cells` are its rows and columns.

    Raises LabError for geometry where it cannot be followed through the network.
    """
    if kind == "stretched":
        return resize_alignment(fcn, size, cells, granularity)
    if kind == "geometric":
        rf_center = rf_center_alignment(fcn, size, granularity)
        require(
            rf_center,
            "where this network's cells lie by geometry cannot be followed through it: use --placement effective or stretched",
        )
        return rf_center
    offset = erf_offset(fcn)
    base = (
        rf_center_alignment(fcn, size, granularity)
        if offset.reference == "geometric"
        else resize_alignment(fcn, size, cells, granularity)
    )
    return Alignment("effective", tuple(s + m for s, m in zip(base.start, offset.mean, strict=True)), base.stride)


def resize_alignment(
    fcn: FullyConvolutional, size: tuple[int, int], cells: tuple[int, int], granularity: Granularity
) -> Alignment:
    """The last map stretched over the whole picture."""
    window = fcn.window_shape if granularity == "windows" else (1, 1)
    stride = tuple(side / (count + extent - 1) for side, count, extent in zip(size, cells, window, strict=True))
    return Alignment("stretched", tuple(s * extent / 2 - 0.5 for s, extent in zip(stride, window, strict=True)), stride)


def rf_center_alignment(fcn: FullyConvolutional, size: tuple[int, int], granularity: Granularity) -> Alignment | None:
    """The middles of all pixels that a cell, or a window of cells, can depend on; None where that is not known."""
    cell_axes = fcn.rf_grid(size)
    if cell_axes is None:
        return None
    extra_cells = [extent - 1 for extent in fcn.window_shape] if granularity == "windows" else [0, 0]
    start = tuple(centre + stride * more / 2 for (centre, stride), more in zip(cell_axes, extra_cells, strict=True))
    return Alignment("geometric", start, tuple(stride for _, stride in cell_axes))


def erf_offset(fcn: FullyConvolutional, cache_dir: Path | None = None) -> ErfOffset:
    """The network's displacement, measured once and then read from `folder`, HOME if it is left out."""
    if "displacement" not in fcn.cache:
        fcn.cache["displacement"] = cached_erf_offset(
            fcn, (cache_dir or CACHE_DIR).expanduser() / f"{network_fingerprint(fcn)}.json"
        )
    return fcn.cache["displacement"]


def cached_erf_offset(fcn: FullyConvolutional, path: Path) -> ErfOffset:
    if path.exists():
        with suppress(LabError, TypeError, AttributeError):  # damaged, or of another time: measured anew
            return ErfOffset(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in read_json(path).items()}
            )
    offset = measure_erf_offset(fcn)
    with suppress(LabError):  # where nothing can be kept it is measured again next time
        write_json(path, asdict(offset))
    return offset


def network_fingerprint(fcn: FullyConvolutional) -> str:
    """What a displacement hangs on: the network's weights, its layers and what it does to pixels."""
    digest = hashlib.blake2b(
        repr((CACHE_VERSION, str(fcn.net.network), fcn.net.mean, fcn.net.std, fcn.net.input_size)).encode(),
        digest_size=16,
    )
    for name, tensor in fcn.net.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def measure_erf_offset(fcn: FullyConvolutional, images: Sequence[Float[Tensor, "1 c h w"]] | None = None) -> ErfOffset:
    """The middle of the squared gradient of inner cells, each cell's best class, against geometry; on six photos, or on `pictures`.

    The photos are brought to twice the network's own size, so that the field of an inner cell fits in. Each is looked at upright
    and upside down: where in it the interesting things are moves the energy, and so cancels.
    """
    net = fcn.net
    size = tuple(2 * side for side in net.input_size) if images is None else tuple(images[0].shape[2:])
    if images is None:
        calibration_images = (
            image_io.resize_and_center_crop(
                image_io.read_image(name), size, net.channels, interpolation=net.interpolation
            )
            for name in CALIBRATION_IMAGES
        )
        images = [photo.unsqueeze(0) / 255 for photo in calibration_images]
    granularity = fcn.default_granularity
    centroids, squared_radii, measured_cells = [], [], []
    with frozen_eval(net):
        for pixels in images:
            for oriented in (pixels, pixels.flip((2, 3))):
                for cell, energy in erf_energies(fcn, oriented.to(net.scale)):
                    centroid, squared_radius = erf_centroid_and_squared_radius(energy)
                    centroids.append(centroid)
                    squared_radii.append(squared_radius)
                    measured_cells.append(cell)
        cells = dense_grid_shape(fcn, images[0].to(net.scale))
    require(centroids, "no cell of this network's last map depends on the picture: there is nothing to place")
    base = rf_center_alignment(fcn, size, granularity) or resize_alignment(fcn, size, cells, granularity)
    expected = [[base.start[k] + cell[k] * base.stride[k] for k in range(2)] for cell in measured_cells]
    offsets = torch.tensor(centroids, dtype=torch.float64) - torch.tensor(expected, dtype=torch.float64)  # [cells, 2]
    return ErfOffset(
        mean=tuple(offsets.mean(0).tolist()),
        std=tuple(offsets.std(0).tolist()) if len(offsets) > 1 else (0.0, 0.0),
        rms_radius=float(torch.tensor(squared_radii).mean().sqrt()),
        num_cells=len(offsets),
        image_size=size,
        reference=base.kind,
    )


def dense_grid_shape(fcn: FullyConvolutional, pixels: Float[Tensor, "1 c h w"]) -> tuple[int, int]:
    with torch.no_grad():
        return tuple(fcn.logits_map(fcn.forward_features(pixels), [0], fcn.default_granularity).shape[2:])


def erf_energies(fcn: FullyConvolutional, pixels: Float[Tensor, "1 c h w"]) -> Any:
    """For inner cells of a picture's map: the cell, and the squared gradient of its best class, [h, w]."""
    with torch.enable_grad():
        x = pixels.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        class_maps = fcn.logits_map(fcn.forward_features(x), None, fcn.default_granularity)[
            0
        ]  # [classes, rows, columns]
        rows, columns = ([round(fraction * (count - 1)) for fraction in INNER] for count in class_maps.shape[1:])
        for row in dict.fromkeys(rows):
            for column in dict.fromkeys(columns):
                (gradient,) = torch.autograd.grad(class_maps[:, row, column].max(), x, retain_graph=True)
                energy = gradient[0].double().square().sum(0)
                if float(energy.sum()) > 0:
                    yield (row, column), energy


def erf_centroid_and_squared_radius(energy: Float[Tensor, "h w"]) -> tuple[tuple[float, float], float]:
    """The centroid of an energy, rows and columns in pixels, and its mean squared distance from there."""
    weights = energy / energy.sum()
    rows, columns = torch.arange(energy.shape[0]).double(), torch.arange(energy.shape[1]).double()
    row, column = float(weights.sum(1) @ rows), float(weights.sum(0) @ columns)
    squared_radius = weights.sum(1) @ (rows - row).square() + weights.sum(0) @ (columns - column).square()
    return (row, column), float(squared_radius)
