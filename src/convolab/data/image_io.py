"""Single images: any file, sample or URL to upright RGB, and how an image is resized for a network."""

import errno
import io
import math
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.core.escape import escape_line
from convolab.core.files import MAX_PATH_BYTES, user_path
from convolab.core.text import format_bytes
from convolab.data.url import fetch_url

MAX_IMAGE_PIXELS = 50_000_000
MAX_BYTES_PER_PIXEL = 8  # of a file: four channels of 16 bits, not compressed
MAX_FILE_OVERHEAD = 100_000_000  # what a file may hold beside its pixels
# The formats that are decoded. Pillow knows many more; one of them, EPS, is a program that it lets Ghostscript run.
IMAGE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SAMPLE_IMAGES = {  # bundled sample images: the package that contains them, and where
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
}
# Of a file that is as it is; a damaged one may ask for a place before its beginning. Others, as of a disk, may pass.
LASTING_ERRORS = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EOVERFLOW,
)
RAISE_LIMIT = "raise the limit: --max-pixels of a command, max_pixels of read_image and predict in Python"
LIFT_LIMIT = "lift the limit: set CONVOLAB_LIMITS=data.image_io.MAX_IMAGE_PIXELS=NUMBER"  # of a dataset's images
Interpolation = Literal["bilinear", "bicubic"]
PixelArray: TypeAlias = Tensor | np.ndarray[Any, np.dtype[Any]]
ImageLike: TypeAlias = str | Path | PixelArray | Image.Image | io.BytesIO  # what `open_image` takes
MEMORY_FORMS = "a Pillow image, an image file in io.BytesIO, or bytes or floats in [0, 1] as an array or a dense tensor"
RESAMPLING_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_image(source: Path | str, max_pixels: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Read an image by a sample's name, such as `chelsea`, by its path, or by its http(s) URL.

    Args:
        source: a name of `SAMPLE_IMAGES`, a path or a URL; a file named like a sample is reached as `./chelsea`.
        max_pixels: the largest width x height that is decoded; by default MAX_IMAGE_PIXELS.

    Returns:
        uint8 [3, H, W], upright RGB.

    Raises LabError if there is no such image, it is damaged or too large, or the URL does not give it.

    >>> read_image("chelsea").shape
    torch.Size([3, 300, 451])
    """
    max_pixels = MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)):
        return decode_image(io.BytesIO(fetch_url(str(source))), str(source), max_pixels)
    if str(source) in SAMPLE_IMAGES:
        return read_image_file(sample_image_path(str(source)), max_pixels)
    path = user_path(source)
    if len(path.parts) == 1 and not path.suffix and not os.path.lexists(path):
        known = suggest(path.name, SAMPLE_IMAGES)
        raise LabError(f"there is no file and no sample image '{escape_line(path.name, 200)}': {known}")
    return read_image_file(path, max_pixels)


def open_image(image: ImageLike, max_pixels: int | None = None) -> tuple[str, UInt8[Tensor, "c h w"]]:
    """What an image is called, and its pixels: by a sample's name, a path or an address as `read_image` takes it, or in
    memory as `to_uint8_image` does, or as a file in memory.

    Raises LabError for what is not an image.

    >>> [(name, pixels.shape) for name, pixels in map(open_image, ("chelsea", np.zeros((8, 9))))]
    [('chelsea', torch.Size([3, 300, 451])), ('the image', torch.Size([1, 8, 9]))]
    """
    if isinstance(image, str | Path):
        return Path(str(image).rstrip("/")).stem, read_image(image, max_pixels)
    if isinstance(image, io.BytesIO):
        require(not image.closed, "the image is a BytesIO that was closed: make a new one")
        return "the image", decode_image(image, "the image", MAX_IMAGE_PIXELS if max_pixels is None else max_pixels)
    return "the image", to_uint8_image(image)


def sample_image_path(name: str) -> Path:
    """The path of a sample image; the package that contains it is not imported."""
    package, relative_path = SAMPLE_IMAGES[name]
    spec = find_spec(package)
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
    if spec is None or not spec.submodule_search_locations:
        raise LabError(
            f"the sample image '{name}' is part of {distribution}, which is not installed: pip install {distribution}"
        )
    path = Path(spec.submodule_search_locations[0]) / relative_path
    require(path.is_file(), f"{path} is missing: pip install --force-reinstall {distribution}")
    return path


def read_image_file(path: Path | str, max_pixels: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Read an image of one of `IMAGE_FORMATS`: rotated as its EXIF says, transparency composited on white, the first
    frame of an animation.

    Raises LabError, with the path first, if the file is missing, damaged, not an image, or of more than `max_pixels`;
    the latter is read from the file's header, before anything is decoded. See `pixel_limit` for the default.
    """
    path = user_path(path)
    name = escape_line(str(path), MAX_PATH_BYTES)
    limit, advice = pixel_limit(max_pixels)
    max_bytes = MAX_FILE_OVERHEAD + MAX_BYTES_PER_PIXEL * limit
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            is_run = all((path / file).is_file() for file in ("recipe.toml", "summary.json"))
            raise LabError(
                f"{name}: this is a run: give an image, and the run as the network (--net {name}, net=...)"
                if is_run
                else f"{name}: this is a folder: give one of its images"
            )
        # What is read of a pipe or a device may never come, or never end.
        require(stat.S_ISREG(status.st_mode), f"{name}: this is a pipe or a device, not a file: give an image file")
        require(
            status.st_size <= max_bytes,
            f"{name} is {format_bytes(status.st_size)}, more than the limit of {format_bytes(max_bytes)}: "
            f"resize the image, or {advice}",
        )
        with path.open("rb") as file:
            return decode_image(file, name, max_pixels)
    except FileNotFoundError as error:
        raise LabError(f"{name}: there is no such file: check the name") from error
    except OSError as error:
        raise LabError(f"{name}: cannot be read ({error.strerror}): check the file and its folder") from error


def may_pass(error: BaseException | None) -> bool:
    """Whether reading failed for a reason that is not the file's, so that the next try may succeed.

    >>> may_pass(OSError(errno.EIO, "Input/output error")), may_pass(OSError("image file is truncated"))
    (True, False)
    """
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in LASTING_ERRORS
    return isinstance(error, MemoryError)


def pixel_limit(max_pixels: int | None) -> tuple[int, str]:
    """The most pixels of an image, and how to allow more: by an option, where the caller has one to pass on (not None)."""
    return (MAX_IMAGE_PIXELS, LIFT_LIMIT) if max_pixels is None else (max_pixels, RAISE_LIMIT)


def decode_image(
    file: io.BufferedReader | io.BytesIO, name: str, max_pixels: int | None = None
) -> UInt8[Tensor, "3 h w"]:
    """`read_image_file` on an open file; `name` is what errors call it."""
    name = escape_line(name, MAX_PATH_BYTES)
    limit, advice = pixel_limit(max_pixels)
    too_large = f"more than the limit of {limit:,} pixels: resize the image, or {advice}"
    try:
        # Pillow warns of large images, which are refused below, and of odd details of files that it reads all the same.
        with (
            warnings.catch_warnings(action="ignore"),
            raised_pixel_limit(limit),
            Image.open(file, formats=IMAGE_FORMATS) as image,
        ):
            width, height = image.size
            require(width > 0 and height > 0, f"{name}: damaged ({width} x {height} pixels): get an intact copy")
            require(width * height <= limit, f"{name}: {width} x {height} is {too_large}")
            return to_tensor(to_upright_rgb(image, name))
    except LabError:
        raise
    except Image.DecompressionBombError as error:
        raise LabError(f"{name}: far {too_large}") from error
    except UnidentifiedImageError as error:
        raise LabError(f"{name}: not an image ({', '.join(IMAGE_FORMATS)}): convert it to PNG or JPEG") from error
    except MemoryError as error:
        raise LabError(f"{name}: there is not enough memory to read it: close other programs") from error
    except Exception as error:  # a decoder may fail in any way on a damaged file, from OSError to struct.error
        if may_pass(error):
            raise  # it is the disk's: `read_image_file` says so
        reason = escape_line(" ".join(str(error).split()) or type(error).__name__, 200)
        raise LabError(f"{name}: damaged ({reason}): get an intact copy") from error


_pixel_limit_lock = Lock()


@contextmanager
def raised_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Raise Pillow's own limit where the caller allows more: a global, so only one thread at a time does so."""
    if Image.MAX_IMAGE_PIXELS is None or max_pixels <= 2 * Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _pixel_limit_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def resize_and_center_crop(
    photo: UInt8[Tensor, "c h w"] | Image.Image,
    size: tuple[int, int],
    channels: int,
    *,
    interpolation: Interpolation = "bilinear",
    crop: float | None = None,
) -> UInt8[Tensor, "{channels} {size[0]} {size[1]}"]:
    """Resize a photo so that its shorter side fits, and keep the center.

    The filter is antialiased; resizing and cropping are one step, so no pixel is rounded twice. The images of a folder
    and those to predict both pass through here, so a network sees what it was trained on.

    Args:
        photo: uint8 [C, H, W] with 1 or 3 channels, or a Pillow image.
        size: height and width of the result, in pixels.
        channels: of the result: 3, or 1 for luma (ITU-R 601).
        interpolation: the resampling filter.
        crop: the fraction of the shorter side that is kept. With it, the photo is resized to whole pixels, of which the
            center is cropped, bit for bit as timm and torchvision evaluate ImageNet networks with Pillow.

    Returns:
        uint8 [channels, *size].

    Raises LabError for channels other than 1 or 3, a size without pixels, and a crop outside of (0, 1].

    >>> resize_and_center_crop(torch.full((3, 60, 40), 7, dtype=torch.uint8), (2, 3), channels=1)
    tensor([[[7, 7, 7],
             [7, 7, 7]]], dtype=torch.uint8)
    """
    require(channels in (1, 3), f"{channels} channels were requested: give 1 or 3")
    require(min(size) > 0, f"the size {size[0]} x {size[1]} was requested: give at least 1 x 1")
    image = to_upright_rgb(photo if isinstance(photo, Image.Image) else to_pil(photo)).convert(
        "RGB" if channels == 3 else "L"
    )
    require(crop is None or 0 < crop <= 1, f"the crop is {crop}: give a fraction above 0 and at most 1")
    if crop is None or has_extreme_aspect_ratio(image.size):
        return to_tensor(
            ImageOps.fit(image, (size[1], size[0]), RESAMPLING_FILTERS[interpolation], bleed=(1 - (crop or 1)) / 2)
        )
    height, width = size
    short_side = math.floor(max(size) / crop)
    resized_width, resized_height = (
        short_side if side == min(image.size) else int(short_side * side / min(image.size)) for side in image.size
    )
    image = image.resize((resized_width, resized_height), RESAMPLING_FILTERS[interpolation])
    left, top = (round((actual - wanted) / 2) for actual, wanted in zip(image.size, (width, height), strict=True))
    return to_tensor(image.crop((left, top, left + width, top + height)))


def resize_image(
    photo: UInt8[Tensor, "c h w"], size: tuple[int, int], channels: int, *, interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "{channels} {size[0]} {size[1]}"]:
    """Resize a photo to (height, width), antialiased, without cropping. One channel is luma.

    >>> resize_image(torch.full((3, 60, 40), 7, dtype=torch.uint8), (2, 2), channels=1)
    tensor([[[7, 7],
             [7, 7]]], dtype=torch.uint8)
    """
    image = to_pil(photo).convert("RGB" if channels == 3 else "L")
    height, width = size
    if image.size == (width, height):
        return to_tensor(image)
    return to_tensor(image.resize((width, height), RESAMPLING_FILTERS[interpolation]))


def crop_region(
    image_size: tuple[int, int], size: tuple[int, int], crop: float | None = None
) -> tuple[float, float, float, float]:
    """The part of a photo that `resize_and_center_crop` keeps: left, top, right, bottom in the photo's pixels.

    Both sizes are (height, width).

    >>> crop_region((300, 400), (224, 224)), crop_region((300, 400), (224, 224), crop=0.875)
    ((50.0, 0.0, 350.0, 300.0), (68.75, 18.75, 331.25, 281.25))
    """
    if crop is None or has_extreme_aspect_ratio(image_size):
        scale = max(wanted / actual for wanted, actual in zip(size, image_size, strict=True)) / (crop or 1)
    else:
        scale = math.floor(max(size) / crop) / min(image_size)
    height, width = (wanted / scale for wanted in size)
    return (
        (image_size[1] - width) / 2,
        (image_size[0] - height) / 2,
        (image_size[1] + width) / 2,
        (image_size[0] + height) / 2,
    )


def has_extreme_aspect_ratio(sides: tuple[int, int]) -> bool:
    """Whether an image is so narrow that its longer side, resized before cropping, would have thousands of pixels."""
    return max(sides) > 20 * min(sides)


def to_upright_rgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Rotated as its EXIF says, 16 bits scaled to 8, transparency composited on white."""
    image = ImageOps.exif_transpose(image)
    require(image.mode != "F", f"{name}: pixels are floating-point numbers of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255
        values = np.asarray(image).astype(np.int32)  # half the memory of int64
        require(
            values.min() >= 0 and values.max() <= 65535,
            f"{name}: pixels range from {values.min()} to {values.max()}: save it with 8 or 16 bits",
        )
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_uint8_image(image: Image.Image | PixelArray) -> UInt8[Tensor, "c h w"]:
    """An image that is in memory, as bytes [C, H, W].

    Args:
        image: a Pillow image; an array [H, W, C] or a tensor [C, H, W] (either order is accepted where it is clear), or
            [H, W]; with 1 or 3 channels. Integers are bytes, floats are pixels in [0, 1].

    Raises LabError for other shapes and types, and for values out of range.

    >>> to_uint8_image(np.full((4, 5, 3), 0.5)).shape, int(to_uint8_image(torch.ones(1, 2, 2)).max())
    (torch.Size([3, 4, 5]), 255)
    """
    if isinstance(image, Image.Image):
        return to_tensor(to_upright_rgb(image, "the image"))
    values = dense_values(image)
    values = values.unsqueeze(0) if values.ndim == 2 else values
    wanted = "give [H, W, C], [C, H, W] or [H, W] with 1 or 3 channels"
    require(values.ndim == 3, f"the image has the shape {list(values.shape)}: {wanted}")
    is_channels_last = values.shape[2] in (1, 3) and (not isinstance(image, Tensor) or values.shape[0] not in (1, 3))
    values = values.permute(2, 0, 1) if is_channels_last else values
    require(values.shape[0] in (1, 3), f"the image has the shape {list(values.shape)}: {wanted}")
    require(values.numel(), "the image has no pixels")
    if values.is_floating_point():
        in_range = bool(((values >= 0) & (values <= 1)).all())
        require(in_range, "an image of floats has values that are not in [0, 1]: divide by 255, or give bytes")
        return (values * 255).round().to(torch.uint8).contiguous()
    in_range = not values.is_complex() and bool(((wide := values.long()) >= 0).all() and (wide <= 255).all())
    require(in_range, f"an image of {values.dtype} has values that are not in 0 to 255: give bytes")
    return values.to(torch.uint8).contiguous()


def dense_values(image: PixelArray) -> Tensor:
    """The numbers of an image in memory, in this machine's byte order. Raises LabError for what holds no plain numbers."""
    if isinstance(image, Tensor):
        kind = (
            "a tensor without values (meta)" if image.is_meta
            else "a sparse tensor" if image.layout is not torch.strided
            else "a nested tensor" if image.is_nested
            else f"a tensor of {image.dtype}" if image.is_quantized or "float8" in str(image.dtype)
            else ""
        )  # fmt: skip
        require(not kind, f"the image is {kind}: give {MEMORY_FORMS}")
        return image.detach().cpu()
    try:
        array = np.array(image)
    except ValueError as error:
        raise LabError(f"the image's rows differ in length: give {MEMORY_FORMS}") from error
    given = type(image).__name__ if array.ndim == 0 else f"an array of {array.dtype}"
    require(array.dtype.kind in "buifc" and array.dtype.itemsize <= 8, f"the image is {given}: give {MEMORY_FORMS}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def to_pil(photo: UInt8[Tensor, "c h w"]) -> Image.Image:
    require(len(photo) in (1, 3), f"the photo has {len(photo)} channels: give 1 or 3")
    return Image.fromarray((photo[0] if len(photo) == 1 else photo.permute(1, 2, 0)).contiguous().numpy())


def to_tensor(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    pixels = np.array(image)  # a copy, because torch wants memory that may be written to
    return torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()
