"""Single pictures: any file to upright RGB, and the one way a picture is brought to a network's size."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convolab.ground.errors import LabError, need

MAX_PIXELS = 50_000_000


def read_photo(path: Path | str, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 h w"]:
    """Read a picture of any format Pillow knows: turned upright, on white where it is see-through, an animation's first frame.

    Raises LabError, with the path first, if the file is missing, damaged, no picture, or of more than `max_pixels`; the
    latter is seen in the file's head, before anything is decoded.
    """
    path = Path(path)
    need(path.is_file(), f"{path}: there is no such file: check the name")
    try:
        # Pillow warns of large pictures, which are refused below, and of odd details of files that it reads all the same.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            need(width * height <= max_pixels, f"{path}: {width} x {height} is more than {max_pixels:,} pixels: make the picture smaller")
            return _tensor(_upright_rgb(image, str(path)))
    except LabError:
        raise
    except Image.DecompressionBombError as error:
        raise LabError(f"{path}: far more than {max_pixels:,} pixels: make the picture smaller") from error
    except UnidentifiedImageError as error:
        raise LabError(f"{path}: not a picture that Pillow can read: convert it to PNG or JPEG") from error
    except Exception as error:  # a decoder may fail in any way on a damaged file, from OSError to struct.error
        raise LabError(f"{path}: damaged ({' '.join(str(error).split())}): get a whole copy") from error


def fit(
    photo: UInt8[Tensor, "c h w"] | Image.Image, size: tuple[int, int], channels: int
) -> UInt8[Tensor, "{channels} {size[0]} {size[1]}"]:
    """Bring a photo to `size` (height, width): its shorter side is resized to fit, and the centre is kept.

    The filter is bilinear and antialiased; resizing and cropping are one step, so no pixel is rounded twice. One channel is
    luma (ITU-R 601). The pictures of a folder and those to predict both pass here, so a network meets what it was trained on.
    Raises LabError for channels other than 1 or 3.

    >>> fit(torch.full((3, 60, 40), 7, dtype=torch.uint8), (2, 3), channels=1)
    tensor([[[7, 7, 7],
             [7, 7, 7]]], dtype=torch.uint8)
    """
    need(channels in (1, 3), f"{channels} channels are wanted: a picture has 1 or 3")
    need(min(size) > 0, f"a picture of {size[0]} x {size[1]} pixels is wanted: give at least 1 x 1")
    image = _upright_rgb(photo if isinstance(photo, Image.Image) else _image(photo))
    return _tensor(ImageOps.fit(image.convert("RGB" if channels == 3 else "L"), (size[1], size[0]), Image.Resampling.BILINEAR))


def _upright_rgb(image: Image.Image, name: str = "the picture") -> Image.Image:
    """Turned as its EXIF says; 16 bits brought to 8; whatever is see-through laid on white."""
    image = ImageOps.exif_transpose(image)
    need(image.mode != "F", f"{name}: pixels are fractions of no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        values = np.asarray(image).astype(np.int64)
        need(
            values.min() >= 0 and values.max() <= 65535,
            f"{name}: pixels run from {values.min()} to {values.max()}: save it with 8 or 16 bits",
        )
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _image(photo: UInt8[Tensor, "c h w"]) -> Image.Image:
    need(len(photo) in (1, 3), f"the photo has {len(photo)} channels: give 1 or 3")
    return Image.fromarray((photo[0] if len(photo) == 1 else photo.permute(1, 2, 0)).contiguous().numpy())


def _tensor(image: Image.Image) -> UInt8[Tensor, "c h w"]:
    pixels = np.array(image)  # a copy, because torch wants memory that may be written to
    return torch.from_numpy(pixels.reshape(image.height, image.width, -1)).permute(2, 0, 1).contiguous()
