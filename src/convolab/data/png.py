"""An image as a PNG in memory. It takes no time to import: what it needs is imported when it is called."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def png_url(image: "Tensor") -> str:
    """An image, uint8 [C, H, W], as the address of a PNG that is in the address itself."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"


def png_bytes(image: "Tensor") -> bytes:
    """An image, uint8 [C, H, W], as the bytes of a PNG: lossless, RGB, and written fast rather than small."""
    from convolab.data.image_io import to_pil

    file = io.BytesIO()
    to_pil(image).convert("RGB").save(file, "PNG", compress_level=1)
    return file.getvalue()
