"""The effective receptive field of a network's cells (Luo et al. 2016, arXiv:1701.04128), measured by gradients.

The energy of a cell's gradient with respect to the pixels has a centroid. How far it lies from the cell's
receptive-field center is measured once per network: for every inner cell, and for images of every size, it is the same
by translation.
"""

import hashlib
import inspect
import linecache
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from convolab.core.environment import cache_folder
from convolab.core.errors import LabError, require
from convolab.core.files import read_json, write_json
from convolab.core.types import Frozen
from convolab.data import image_io
from convolab.inspection.localization.alignment import resize_alignment, rf_center_alignment
from convolab.inspection.localization.dense import FullyConvolutional
from convolab.inspection.passes import gradient_of
from convolab.inspection.types import SinglePixels
from convolab.models.inference import frozen_eval
from convolab.models.own_code import OwnCodeFinder

CALIBRATION_IMAGES = ("chelsea", "coffee", "rocket", "motorcycle_left", "flower", "china")  # samples to measure on
INNER = (0.4, 0.6)  # which cells are measured, along each axis: away from the border, which cuts receptive fields off
CACHE_NAME = "erf_offsets"  # the folder of the measurements
CACHE_VERSION = 3  # of what is cached: raise it when the measurement or its fields change

# The offsets of the views in use, one for each call: a measurement takes seconds, and finding its file hashes all weights.
_offsets: WeakKeyDictionary[FullyConvolutional, "ErfOffset"] = WeakKeyDictionary()


class ErfOffset(Frozen):
    """How far the centroid of a cell's gradient energy lies from its reference position, in pixels: rows, columns."""

    mean: tuple[float, float]
    std: tuple[float, float]  # standard deviation over cells and images
    rms_radius: float  # root mean square distance of the energy from its centroid, in pixels
    num_cells: int  # how many were measured
    image_size: tuple[int, int]  # height and width of the images that they were measured on
    reference: Literal["rf-center", "resize"]  # where the offset starts; resize only where rf-center is not known


def erf_offset(fcn: FullyConvolutional, cache_dir: Path | None = None) -> ErfOffset:
    """The network's offset, measured once and kept in a file of `cache_dir` (by default in convolab's cache).

    Where none is kept it is measured for each `fcn`: for code without a source, or if the file cannot be written.
    """
    if fcn not in _offsets:
        folder = cache_dir or cache_folder(CACHE_NAME)
        fingerprint = network_fingerprint(fcn)
        _offsets[fcn] = (
            measure_erf_offset(fcn) if fingerprint is None else cached_erf_offset(fcn, folder / f"{fingerprint}.json")
        )
    return _offsets[fcn]


def cached_erf_offset(fcn: FullyConvolutional, path: Path) -> ErfOffset:
    if path.exists():
        with suppress(LabError, ValidationError):  # damaged, or of another edition: measured again
            return ErfOffset.model_validate(read_json(path))
    offset = measure_erf_offset(fcn)
    with suppress(LabError):  # where no file can be written it is measured again next time
        write_json(path, offset.model_dump(mode="json"))
    return offset


def network_fingerprint(fcn: FullyConvolutional) -> str | None:
    """A hash of all that an offset depends on: the network's code, weights, layers and normalization.

    None if there is code whose source is not known, as of a cell of a notebook: its measurement is not kept.
    """
    net = fcn.net
    sources = [source_of(kind) for kind in dict.fromkeys(map(type, net.network.modules()))]
    if None in sources:
        return None
    description = repr((CACHE_VERSION, str(net.network), net.mean, net.std, net.input_size))
    digest = hashlib.blake2b(description.encode(), digest_size=16)
    for source in dict.fromkeys(sources):
        digest.update(str(source).encode())
    for name, tensor in net.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def source_of(kind: type[nn.Module]) -> str | None:
    """The source of the module that a layer's class is in; of a network's own files a hash of all of them.

    torch's own layers are known by their names. None if there is no source.
    """
    if kind.__module__.partition(".")[0] == "torch":
        return ""
    # Not by the module's name: several versions of one's own file may have been imported.
    names = getattr(inspect.unwrap(kind.forward), "__globals__", {})
    loader = names.get("__loader__")
    if isinstance(loader, OwnCodeFinder):
        return loader.code.digest
    return "".join(linecache.getlines(names.get("__file__") or "", names)) or None


def measure_erf_offset(fcn: FullyConvolutional, images: Sequence[SinglePixels] | None = None) -> ErfOffset:
    """The mean offset of inner cells, each for its best class, over six photos or over `images` of one size.

    The photos are resized to twice the network's own size, so that the receptive field of an inner cell fits in. Each
    is used upright and upside down: where its objects are moves the energy, and so cancels.

    Raises LabError if no cell depends on the image, or none does for autograd.
    """
    net = fcn.net
    if images is None:
        images = calibration_images(fcn)
    size = images[0].shape[2], images[0].shape[3]
    granularity = fcn.default_granularity
    centroids: list[tuple[float, float]] = []
    squared_radii: list[float] = []
    measured_cells: list[tuple[int, int]] = []
    with frozen_eval(net):
        for pixels in images:
            for oriented in (pixels, pixels.flip((2, 3))):
                for cell, energy in erf_energies(fcn, oriented.to(net.scale)):
                    centroid, squared_radius = erf_centroid_and_squared_radius(energy)
                    centroids.append(centroid)
                    squared_radii.append(squared_radius)
                    measured_cells.append(cell)
        cells = dense_grid_shape(fcn, images[0].to(net.scale))
    require(centroids, "no cell of this network's last feature map depends on the image: there is nothing to align")
    by_center = rf_center_alignment(fcn, size, cells, granularity)
    base = by_center or resize_alignment(fcn, size, cells, granularity)
    expected = [[base.start[k] + cell[k] * base.stride[k] for k in range(2)] for cell in measured_cells]
    offsets = torch.tensor(centroids, dtype=torch.float64) - torch.tensor(expected, dtype=torch.float64)  # [cells, 2]
    mean = offsets.mean(0)
    std = offsets.std(0) if len(offsets) > 1 else torch.zeros(2)
    return ErfOffset(
        mean=(float(mean[0]), float(mean[1])),
        std=(float(std[0]), float(std[1])),
        rms_radius=float(torch.tensor(squared_radii).mean().sqrt()),
        num_cells=len(offsets),
        image_size=size,
        reference="resize" if by_center is None else "rf-center",
    )


def calibration_images(fcn: FullyConvolutional) -> list[SinglePixels]:
    """The sample photos as pixels in [0, 1], at twice the network's own size."""
    net = fcn.net
    size = 2 * net.input_size[0], 2 * net.input_size[1]
    photos = (
        image_io.resize_and_center_crop(image_io.read_image(name), size, net.channels, interpolation=net.interpolation)
        for name in CALIBRATION_IMAGES
    )
    return [photo.unsqueeze(0) / 255 for photo in photos]


def dense_grid_shape(fcn: FullyConvolutional, pixels: SinglePixels) -> tuple[int, int]:
    """Rows and columns of the response to pixels."""
    with torch.no_grad():
        response = fcn.logits_map(fcn.forward_features(pixels), [0], fcn.default_granularity)
    return response.shape[2], response.shape[3]


def erf_energies(
    fcn: FullyConvolutional, pixels: SinglePixels
) -> Iterator[tuple[tuple[int, int], Float[Tensor, "h w"]]]:
    """For inner cells of the map of one image: the cell (row, column), and the squared gradient of its best class."""
    with torch.enable_grad():
        x = pixels.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        class_maps = fcn.logits_map(fcn.forward_features(x), None, fcn.default_granularity)[0]
        rows, columns = ([round(fraction * (count - 1)) for fraction in INNER] for count in class_maps.shape[1:])
        for row in dict.fromkeys(rows):
            for column in dict.fromkeys(columns):
                gradient = gradient_of(
                    class_maps[:, row, column].max(),
                    x,
                    remedy="choose the alignment rf-center or resize",
                    retain_graph=True,
                )
                energy = gradient[0].double().square().sum(0)
                if 0 < float(energy.sum()) < math.inf:
                    yield (row, column), energy


def erf_centroid_and_squared_radius(energy: Float[Tensor, "h w"]) -> tuple[tuple[float, float], float]:
    """The centroid of an energy (row, column) in pixels, and its mean squared distance from there."""
    weights = energy / energy.sum()
    rows = torch.arange(energy.shape[0]).double()
    columns = torch.arange(energy.shape[1]).double()
    row = float(weights.sum(1) @ rows)
    column = float(weights.sum(0) @ columns)
    squared_radius = weights.sum(1) @ (rows - row).square() + weights.sum(0) @ (columns - column).square()
    return (row, column), float(squared_radius)
