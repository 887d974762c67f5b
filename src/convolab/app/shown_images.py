"""The images that the page looks at: bundled samples and uploads, named alike in all tabs, and how they are sent."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from convolab.app.answers import PageCall, json_route
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.data.png import png_bytes as png_bytes  # the tabs take it from here
from convolab.data.png import png_url as png_url

if TYPE_CHECKING:
    from torch import Tensor

UPLOAD = "upload:"  # how the name of an uploaded image begins
MAX_SHOWN_SIDE = 1600  # pixels of an image that is only looked at
JPEG_QUALITY = 90


@dataclass(frozen=True)
class ChosenImage:
    """An image that a person chose.

    Attributes:
        name: what it is called on the page.
        source: how a command or Python names it: a sample, or the file that was uploaded.
        pixels: uint8 [3, H, W].
    """

    name: str
    source: str
    pixels: "Tensor"


def chosen_image(call: PageCall, usual: str) -> ChosenImage:
    """The image that a request names. Raises LabError for one that is not here."""
    from convolab.data.image_io import SAMPLE_IMAGES, read_image

    value = call.text("image") or usual
    if value.startswith(UPLOAD):
        upload = call.app.sessions.upload(call.session, value.removeprefix(UPLOAD))
        return ChosenImage(Path(upload.name).stem or "image", upload_source(upload.name), upload.image)
    require(
        value in SAMPLE_IMAGES,
        f"'{escape_line(value, 80)}' is not an image of this page: choose one of {', '.join(SAMPLE_IMAGES)}, or open a file",
    )
    return ChosenImage(value, value, read_image(value))


def upload_source(name: str) -> str:
    """A file's name as a command takes it: never for a sample, an address or an option.

    >>> upload_source("cat.jpg"), upload_source("chelsea"), upload_source("-n.png")
    ('cat.jpg', './chelsea', './-n.png')
    """
    return name if "." in name and not name.startswith(("-", ".")) and ":" not in name else f"./{name}"


def packed_map(values: "Tensor") -> dict[str, Any]:
    """A map [rows, columns] for the page, which draws it: its numbers as float32, little-endian, in base64."""
    data = values.detach().float().contiguous().numpy().astype("<f4").tobytes()
    return {"rows": values.shape[0], "columns": values.shape[1], "data": base64.b64encode(data).decode()}


def offer_images(call: PageCall) -> dict[str, Any]:
    """What a person may choose from."""
    from convolab.data.image_io import SAMPLE_IMAGES

    uploads = call.app.sessions.uploads(call.session)
    return {
        "samples": list(SAMPLE_IMAGES),
        "uploads": [{"value": UPLOAD + upload.id, "name": upload.name} for upload in uploads],
    }


def show_image(call: PageCall) -> Response:
    """An image to look at, made smaller if it is large."""
    from convolab.data.image_io import to_pil

    image = to_pil(chosen_image(call, "chelsea").pixels).convert("RGB")
    image.thumbnail((MAX_SHOWN_SIDE, MAX_SHOWN_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return Response(file.getvalue(), media_type="image/jpeg")


IMAGE_ROUTES = (json_route("/api/images/list", offer_images), json_route("/api/images/show", show_image))
