"""Single pictures: any file, sample or address to upright RGB, and the one way a picture is brought to a network's size."""

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.data.url import fetch_url

MAX_IMAGE_PIXELS = 50_000_000
SAMPLE_IMAGES = {  # pictures that come along: the package that holds them, and where
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
}
Interpolation = Literal["bilinear", "bicubic"]
RESAMPLING_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_image(source: Path | str, max_pixels: int = MAX_IMAGE_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """A picture by a sample's name, such as `chelsea`, by its path, or by its http(s) address.

    A file that is called like a sample is reached as ./chelsea. Raises LabError as `read_photo` and `address.fetch` do.

    >>> open_photo("chelsea").shape
    torch.Size([3, 300, 451])
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)):
        return decode_image(io.BytesIO(fetch_url(str(source))), str(source), max_pixels)
    if str(source) in SAMPLE_IMAGES:
        return read_image_file(sample_image_path(str(source)), max_pixels)
    if not Path(source).exists() and not Path(source).suffix and len(Path(source).parts) == 1:
        raise LabError(
            f"there is neither a file nor a sample picture '{source}': {suggest(str(source), SAMPLE_IMAGES)}"
        )
    return read_image_file(source, max_pixels)


def sample_image_path(name: str) -> Path:
    """Where a sample picture lies; the package that holds it is not imported."""
    package, relative_path = SAMPLE_IMAGES[name]
    spec = find_spec(package)
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
    require(
        spec is not None,
        f"the sample picture '{name}' comes with {distribution}, which is not installed: pip install {distribution}",
    )
    path = Path(spec.submodule_search_locations[0]) / relative_path
    require(path.is_file(), f"{path} is missing: pip install --force-reinstall {distribution}")
    return path


def read_image_file(path: Path | str, max_pixels: int = MAX_IMAGE_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """Read a picture of any format Pillow knows: turned upright, on white where it is see-through, an animation's first frame.

    Raises LabError, with the path first, if the file is missing, damaged, no picture, or of more than `max_pixels`; the
    latter is seen in the file's head, before anything is decoded.
    """
    path = Path(path)
    require(path.is_file(), f"{path}: there is no such file: check the name")
    return decode_image(path, str(path), max_pixels)


def decode_image(file: Path | io.BytesIO, name: str, max_pixels: int) -> UInt8[Tensor, "3 h w"]:
    """`read_photo` on an open file; `name` is what errors call it."""
    too_large = f"more than {max_pixels:,} pixels: make the picture smaller, or allow more (--max-pixels)"
    try:
        # Pillow warns of large pictures, which are refused below, and of odd details of files that it reads all the same.
        with warnings.catch_warnings(action="ignore"), raised_pixel_limit(max_pixels), Image.open(file) as image:
            width, height = image.size
            require(width * height <= max_pixels, f"{name}: {width} x {height} is {too_large}")
            return _to_tensor(_to_upright_rgb(image, name))
    except LabError:
        raise
    except Image.DecompressionBombError as error:
        raise LabError(f"{name}: far {too_large}") from error
    except UnidentifiedImageError as error:
        raise LabError(f"{name}: not a picture that Pillow can read: convert it to PNG or JPEG") from error
    except Exception as error:  # a decoder may fail in any way on a damaged file, from OSError to struct.error
        raise LabError(f"{name}: damaged ({' '.join(str(error).split())}): get a whole copy") from error


_pixel_limit_lock = Lock()


@contextmanager
def raised_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Lift Pillow's own bound where a person allows more. It is a global, so this is done by one thread at a time."""
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
    """Bring a photo to `size` (height, width): its shorter side is resized to fit, and the centre is kept.

    The filter is antialiased; resizing and cropping are one step, so no pixel is rounded twice. One channel is luma (ITU-R 601).
    The pictures of a folder and those to predict both pass here, so a network meets what it was trained on.

    With `crop`, the share of the shorter side that is kept, it is done as ImageNet's networks are evaluated: resized to whole
    pixels, of which the centre is cropped, bit for bit as timm and torchvision do it with Pillow.
    Raises LabError for channels other than 1 or 3, and a crop outside of (0, 1].

    >>> fit(torch.full((3, 60, 40), 7, dtype=torch.uint8), (2, 3), channels=1)
    tensor([[[7, 7, 7],
             [7, 7, 7]]], dtype=torch.uint8)
    """
    require(channels in (1, 3), f"{channels} channels are wanted: a picture has 1 or 3")
    require(min(size) > 0, f"a picture of {size[0]} x {size[1]} pixels is wanted: give at least 1 x 1")
    image = _to_upright_rgb(photo if isinstance(photo, Image.Image) else _to_pil(photo)).convert(
        "RGB" if channels == 3 else "L"
    )
    require(crop is None or 0 < crop <= 1, f"the crop is {crop}: give a share above 0, at most 1")
    if crop is None or _has_extreme_aspect_ratio(image.size):
        return _to_tensor(
            ImageOps.fit(image, (size[1], size[0]), RESAMPLING_FILTERS[interpolation], bleed=(1 - (crop or 1)) / 2)
        )
    (height, width), short_side = size, math.floor(max(size) / crop)
    resized_size = [
        short_side if side == min(image.size) else int(short_side * side / min(image.size)) for side in image.size
    ]
    image = image.resize(resized_size, RESAMPLING_FILTERS[interpolation])
    left, top = (round((actual - wanted) / 2) for actual, wanted in zip(image.size, (width, height), strict=True))
    return _to_tensor(image.crop((left, top, left + width, top + height)))


def resize_image(
    photo: UInt8[Tensor, "c h w"], size: tuple[int, int], channels: int, *, interpolation: Interpolation = "bilinear"
) -> UInt8[Tensor, "{channels} {size[0]} {size[1]}"]:
    """The whole photo at another size (height, width), antialiased; nothing is cropped. One channel is luma.

    >>> resized(torch.full((3, 60, 40), 7, dtype=torch.uint8), (2, 2), channels=1)
    tensor([[[7, 7],
             [7, 7]]], dtype=torch.uint8)
    """
    image = _to_pil(photo).convert("RGB" if channels == 3 else "L")
    return _to_tensor(
        image if image.size == size[::-1] else image.resize(size[::-1], RESAMPLING_FILTERS[interpolation])
    )


def crop_region(
    image_size: tuple[int, int], size: tuple[int, int], crop: float | None = None
) -> tuple[float, float, float, float]:
    """The part of a photo of (height, width) that `fit` shows: left, top, right, bottom in the photo's pixels.

    >>> shown((300, 400), (224, 224)), shown((300, 400), (224, 224), crop=0.875)
    ((50.0, 0.0, 350.0, 300.0), (68.75, 18.75, 331.25, 281.25))
    """
    if crop is None or _has_extreme_aspect_ratio(image_size):
        scale = max(want / actual for want, actual in zip(size, image_size, strict=True)) / (crop or 1)
    else:
        scale = math.floor(max(size) / crop) / min(image_size)
    height, width = (wanted / scale for wanted in size)
    return (
        (image_size[1] - width) / 2,
        (image_size[0] - height) / 2,
        (image_size[1] + width) / 2,
        (image_size[0] + height) / 2,
    )


def _has_extreme_aspect_ratio(sides: tuple[int, int]) -> bool:
    """Whether a picture is so narrow that its longer side, resized as a whole, would have thousands of pixels."""
    return max(sides) > 20 * min(sides)


def _to_upright_rgb(image: Image.Image, name: str = "the picture") -> Image.Image:
    """Turned as its EXIF says; 16 bits brought to 8; whatever is see-through laid on white."""
    image = ImageOps.exif_transpose(image)
    require(image.mode != "F", f"{name}: pixels are fractions of no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        values = np.asarray(image).astype(np.int32)  # a half of what int64 would take of memory
        require(
            values.min() >= 0 and values.max() <= 65535,
            f"{name}: pixels run from {values.min()} to {values.max()}: save it with 8 or 16 bits",
        )
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_pil(photo: UInt8[Tensor, "c h w"]) -> Image.Image:
    require(len(photo) in (1, 3), f"the photo has {len(photo)} channels: give 1 or 3")
    return Image.fromarray((photo[0] if len(photo) == 1 else photo.permute(1, 2, 0)).contiguous().numpy())


def _to_tensor(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    pixels = np.array(image)  # a copy, because torch wants memory that may be written to
    return torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()
