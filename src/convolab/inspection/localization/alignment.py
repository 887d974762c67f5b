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

from convolab.core.errors import LabError, nearest, need
from convolab.core.files import read_json, write_json
from convolab.data import image_io
from convolab.inspection.localization.dense import Dense, Over
from convolab.models.classifier import undisturbed

Kind = Literal["effective", "geometric", "stretched"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LOOKED_AT = ("chelsea", "coffee", "rocket", "motorcycle_left", "flower", "china")  # what a displacement is measured on
INNER = (0.4, 0.6)  # the cells that are asked, along each axis: away from the border, which cuts fields off
HOME = Path("~/.cache/convolab/placement")  # where displacements are kept
VERSION = 1  # of what is cached: to be raised when the measurement changes


@dataclass(frozen=True)
class Placement:
    """Cell (i, j) lies at start + (i, j) * stride: rows, columns, in the picture's pixels, whose middles are whole numbers."""

    kind: Kind
    start: tuple[float, float]
    stride: tuple[float, float]

    def lay(self, response: Float[Tensor, "rows columns"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """A response at every pixel of a picture, linear between its cells and constant beyond them.

        >>> Placement("geometric", (0.0, 1.0), (1.0, 2.0)).lay(torch.tensor([[0.0, 8.0]]), (1, 5))
        tensor([[0., 0., 4., 8., 8.]])
        """
        cells, at = response.shape, []
        for axis in range(2):
            index = (torch.arange(size[axis], dtype=torch.float64) - self.start[axis]) / self.stride[axis]
            at.append(
                2 * index / max(cells[axis] - 1, 1) - 1
            )  # from -1 at the first cell's middle to 1 at the last one's
        grid = torch.stack([at[1].expand(size[0], -1), at[0][:, None].expand(-1, size[1])], dim=-1)[None]
        laid = F.grid_sample(
            response[None, None].double(), grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return laid[0, 0].float()

    def peak(self, response: Float[Tensor, "rows columns"], size: tuple[int, int]) -> tuple[float, float]:
        """Row and column of the picture where the strongest cell lies, at the border if it lies beyond."""
        cell = divmod(int(response.argmax()), response.shape[1])
        return tuple(min(max(self.start[k] + cell[k] * self.stride[k], 0.0), size[k] - 1.0) for k in range(2))

    def scaled(self, factor: tuple[float, float]) -> "Placement":
        """The same places on a picture `factor` times as large: pixels' borders, not their middles, grow by it."""
        start = tuple((s + 0.5) * f - 0.5 for s, f in zip(self.start, factor, strict=True))
        return Placement(self.kind, start, tuple(s * f for s, f in zip(self.stride, factor, strict=True)))

    def borders(self, cells: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where one cell's part of the picture ends and the next one's begins: rows, columns, as borders of pixels."""
        return tuple(
            tuple(start + (i + 0.5) * stride + 0.5 for i in range(count - 1))
            for start, stride, count in zip(self.start, self.stride, cells, strict=True)
        )


@dataclass(frozen=True)
class Displacement:
    """By how much the middle of a cell's gradient energy lies off its geometric centre, in pixels: rows, columns."""

    mean: tuple[float, float]
    spread: tuple[float, float]  # standard deviation over cells and pictures
    radius: float  # root mean square distance of the energy from its middle: how far a cell looks, in pixels
    cells: int  # how many were asked
    size: tuple[int, int]  # of the pictures that they were asked on
    reference: Literal["geometric", "stretched"]  # what it is counted from: stretched only where geometry is not known


def find_placement(word: str) -> Kind:
    """
    >>> find_placement("effective")
    'effective'
    """
    need(word in KINDS, f"there is no placement '{word}': {nearest(word, KINDS)}")
    return word


def place(dense: Dense, kind: Kind, size: tuple[int, int], cells: tuple[int, int], over: Over) -> Placement:
    """Where the cells of an answer `over` cells or windows lie on a picture of this size; `cells` are its rows and columns.

    Raises LabError for geometry where it cannot be followed through the network.
    """
    if kind == "stretched":
        return stretched(dense, size, cells, over)
    if kind == "geometric":
        found = geometric(dense, size, over)
        need(
            found,
            "where this network's cells lie by geometry cannot be followed through it: use --placement effective or stretched",
        )
        return found
    moved = displacement(dense)
    base = geometric(dense, size, over) if moved.reference == "geometric" else stretched(dense, size, cells, over)
    return Placement("effective", tuple(s + m for s, m in zip(base.start, moved.mean, strict=True)), base.stride)


def stretched(dense: Dense, size: tuple[int, int], cells: tuple[int, int], over: Over) -> Placement:
    """The last map stretched over the whole picture."""
    window = dense.window if over == "windows" else (1, 1)
    stride = tuple(side / (count + extent - 1) for side, count, extent in zip(size, cells, window, strict=True))
    return Placement("stretched", tuple(s * extent / 2 - 0.5 for s, extent in zip(stride, window, strict=True)), stride)


def geometric(dense: Dense, size: tuple[int, int], over: Over) -> Placement | None:
    """The middles of all pixels that a cell, or a window of cells, can depend on; None where that is not known."""
    found = dense.geometry(size)
    if found is None:
        return None
    extra = [extent - 1 for extent in dense.window] if over == "windows" else [0, 0]
    start = tuple(centre + stride * more / 2 for (centre, stride), more in zip(found, extra, strict=True))
    return Placement("geometric", start, tuple(stride for _, stride in found))


def displacement(dense: Dense, folder: Path | None = None) -> Displacement:
    """The network's displacement, measured once and then read from `folder`, HOME if it is left out."""
    if "displacement" not in dense.memo:
        dense.memo["displacement"] = remembered(dense, (folder or HOME).expanduser() / f"{fingerprint(dense)}.json")
    return dense.memo["displacement"]


def remembered(dense: Dense, file: Path) -> Displacement:
    if file.exists():
        with suppress(LabError, TypeError, AttributeError):  # damaged, or of another time: measured anew
            return Displacement(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in read_json(file).items()}
            )
    found = measure(dense)
    with suppress(LabError):  # where nothing can be kept it is measured again next time
        write_json(file, asdict(found))
    return found


def fingerprint(dense: Dense) -> str:
    """What a displacement hangs on: the network's weights, its layers and what it does to pixels."""
    digest = hashlib.blake2b(
        repr((VERSION, str(dense.net.network), dense.net.mean, dense.net.std, dense.net.size)).encode(), digest_size=16
    )
    for name, tensor in dense.net.network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def measure(dense: Dense, pictures: Sequence[Float[Tensor, "1 c h w"]] | None = None) -> Displacement:
    """The middle of the squared gradient of inner cells, each cell's best class, against geometry; on six photos, or on `pictures`.

    The photos are brought to twice the network's own size, so that the field of an inner cell fits in. Each is looked at upright
    and upside down: where in it the interesting things are moves the energy, and so cancels.
    """
    net = dense.net
    size = tuple(2 * side for side in net.size) if pictures is None else tuple(pictures[0].shape[2:])
    if pictures is None:
        opened = (
            image_io.fit(image_io.open_photo(name), size, net.channels, interpolation=net.interpolation)
            for name in LOOKED_AT
        )
        pictures = [photo.unsqueeze(0) / 255 for photo in opened]
    over = dense.over
    middles, squares, asked = [], [], []
    with undisturbed(net):
        for pixels in pictures:
            for way in (pixels, pixels.flip((2, 3))):
                for cell, energy in energies(dense, way.to(net.scale)):
                    middle, square = middle_and_square(energy)
                    middles.append(middle)
                    squares.append(square)
                    asked.append(cell)
        cells = rows_and_columns(dense, pictures[0].to(net.scale))
    need(middles, "no cell of this network's last map depends on the picture: there is nothing to place")
    base = geometric(dense, size, over) or stretched(dense, size, cells, over)
    expected = [[base.start[k] + cell[k] * base.stride[k] for k in range(2)] for cell in asked]
    off = torch.tensor(middles, dtype=torch.float64) - torch.tensor(expected, dtype=torch.float64)  # [cells, 2]
    return Displacement(
        mean=tuple(off.mean(0).tolist()),
        spread=tuple(off.std(0).tolist()) if len(off) > 1 else (0.0, 0.0),
        radius=float(torch.tensor(squares).mean().sqrt()),
        cells=len(off),
        size=size,
        reference=base.kind,
    )


def rows_and_columns(dense: Dense, pixels: Float[Tensor, "1 c h w"]) -> tuple[int, int]:
    with torch.no_grad():
        return tuple(dense.answers(dense.features(pixels), [0], dense.over).shape[2:])


def energies(dense: Dense, pixels: Float[Tensor, "1 c h w"]) -> Any:
    """For inner cells of a picture's map: the cell, and the squared gradient of its best class, [h, w]."""
    with torch.enable_grad():
        x = pixels.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        answers = dense.answers(dense.features(x), None, dense.over)[0]  # [classes, rows, columns]
        rows, columns = ([round(share * (count - 1)) for share in INNER] for count in answers.shape[1:])
        for row in dict.fromkeys(rows):
            for column in dict.fromkeys(columns):
                (gradient,) = torch.autograd.grad(answers[:, row, column].max(), x, retain_graph=True)
                energy = gradient[0].double().square().sum(0)
                if float(energy.sum()) > 0:
                    yield (row, column), energy


def middle_and_square(energy: Float[Tensor, "h w"]) -> tuple[tuple[float, float], float]:
    """The centroid of an energy, rows and columns in pixels, and its mean squared distance from there."""
    share = energy / energy.sum()
    rows, columns = torch.arange(energy.shape[0]).double(), torch.arange(energy.shape[1]).double()
    row, column = float(share.sum(1) @ rows), float(share.sum(0) @ columns)
    square = share.sum(1) @ (rows - row).square() + share.sum(0) @ (columns - column).square()
    return (row, column), float(square)
