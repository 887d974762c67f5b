"""A figure as a person in a notebook has it: drawn without a network, and saved in any format."""

import base64
import io
from pathlib import Path

import altair as alt
from PIL import Image

from convolab.core.display import MimeBundle
from convolab.core.errors import require
from convolab.core.escape import html_text
from convolab.plots.images import save_image
from convolab.plots.style import render_svg, save_chart

MAX_PNG_BYTES = 200_000  # of an image in a notebook
CHART_FORMATS = (".html", ".svg", ".png", ".pdf", ".json")


class ChartFigure:
    """An Altair chart, drawn as SVG: altair's own way loads its libraries from the network.

    `chart` is the chart itself, for those who want to change it; `kind` what it shows: `save` replaces files of the
    same kind only.
    """

    def __init__(self, chart: alt.TopLevelMixin, kind: str = "figure") -> None:
        self.chart = chart
        self.kind = kind

    def __repr__(self) -> str:
        return f"{type(self).__name__}: .chart is the Altair chart, .save(path) writes {', '.join(CHART_FORMATS)}"

    def svg(self) -> str:
        """The chart as SVG."""
        return render_svg(self.chart)

    def html(self) -> str:
        """The chart as an element of a page, which shrinks with it."""
        return shrinking(self.svg())

    def save(self, path: Path | str) -> Path:
        """Write the chart in the format of the path's ending.

        Raises LabError for another ending, or where another file is.
        """
        path = Path(path)
        require(path.suffix.lower() in CHART_FORMATS, f"{path}: give a name that ends in {', '.join(CHART_FORMATS)}")
        return save_chart(self.chart, path.with_suffix(""), [path.suffix.removeprefix(".")], self.kind)[0]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> MimeBundle:
        return {"text/plain": repr(self), "image/svg+xml": self.html()}


def shrinking(svg: str) -> str:
    """An SVG that is no wider than what it stands in.

    >>> shrinking('<svg width="9" height="9" viewBox="0 0 9 9"></svg>')
    '<svg style="max-width:100%;height:auto" width="9" height="9" viewBox="0 0 9 9"></svg>'
    """
    return svg.replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)


class ImageFigure:
    """A figure of pixels; `image` is the Pillow image, `alt` what it shows, for those who cannot see it.

    `kind` is what it shows: `save` replaces files of the same kind only.
    """

    def __init__(self, image: Image.Image, alt: str = "", kind: str = "figure") -> None:
        self.image = image
        self.alt = alt
        self.kind = kind

    def __repr__(self) -> str:
        width, height = self.image.size
        return f"{type(self).__name__} of {width} x {height} pixels: .image is the Pillow image, .save(path) writes it"

    def png(self) -> bytes:
        """The image as PNG."""
        file = io.BytesIO()
        self.image.save(file, format="PNG")
        return file.getvalue()

    def encode(self) -> tuple[str, str]:
        """The image's media type, and the image in base64: PNG, or JPEG where that is large, as for photos."""
        content = self.png()
        if len(content) <= MAX_PNG_BYTES:
            return "image/png", base64.b64encode(content).decode()
        file = io.BytesIO()
        self.image.convert("RGB").save(file, format="JPEG", quality=88)
        return "image/jpeg", base64.b64encode(file.getvalue()).decode()

    def html(self) -> str:
        """The image as an element of a page."""
        media_type, content = self.encode()
        return f'<img alt="{html_text(self.alt)}" style="max-width:100%" src="data:{media_type};base64,{content}">'

    def save(self, path: Path | str) -> Path:
        """Write the image in the format of the path's ending.

        Raises LabError for one that Pillow does not write, or where another file is.
        """
        path = Path(path)
        endings = Image.registered_extensions()
        require(endings.get(path.suffix.lower()) in Image.SAVE, f"{path}: give a name that ends in .png, .jpg or .pdf")
        return save_image(self.image, path, self.kind)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> MimeBundle:
        media_type, content = self.encode()
        return {"text/plain": repr(self), media_type: content}
