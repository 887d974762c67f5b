"""What explain, fool and locate are given and leave behind: images one by one; STEM.png, STEM.npz and STEM.json."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convolab.cli.terminal import status_spinner
from convolab.core.errors import require
from convolab.core.escape import file_name_part
from convolab.core.types import Json

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from convolab.inspection.result import Finding

FOREIGN_SUFFIXES = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".html"}
FINDING_SUFFIXES = (".png", ".npz", ".json")


def lazy_image(image: str, max_pixels: int, cache: bool) -> "Callable[[], Tensor]":
    """Open an image now, so that a bad one is refused, and return what gives its pixels.

    Without `cache` a file is read again when it is needed, so memory holds one image at a time. What came from an
    address is kept.
    """
    from convolab.data.image_io import read_image

    pixels = read_image(image, max_pixels)
    return (lambda: pixels) if cache or "://" in image else (lambda: read_image(image, max_pixels))


def output_stem(command: str, image: str, out: Path | None) -> Path:
    """Where a finding's files go, without their endings: `out` without its .png, else COMMAND-NAME in this folder.

    Raises LabError for an `out` that asks for another kind of file.

    >>> output_stem("explain", "photos/cat.jpg", None), output_stem("fool", "chelsea", Path("maps/cat.png"))
    (PosixPath('explain-cat'), PosixPath('maps/cat'))
    """
    if out is None:
        name = image_name(image)
        return Path(f"{command}-{name if name.isprintable() else file_name_part(name)}")
    require(
        out.suffix.lower() not in FOREIGN_SUFFIXES,
        f"--out {out}: images are written as .png: give a name with that ending, or with none",
    )
    return out.with_suffix("") if out.suffix.lower() in FINDING_SUFFIXES else out


def output_stems(command: str, images: Sequence[str], out: Path | None) -> list[Path]:
    """Where each image's files go; those of several into the folder `out`. Raises LabError for two of one name."""
    if len(images) == 1:
        return [output_stem(command, images[0], out)]
    require(out is None or out.suffix != ".png", f"{len(images)} images do not fit in one {out}: give --out a folder")
    names = [output_stem(command, image, None).name for image in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(
        not repeated,
        f"several images would be called {', '.join(repeated)}: {command} them one by one, each with its --out",
    )
    return [(out or Path()) / name for name in names]


def image_name(image: str) -> str:
    """What an image is called: a file's name, or the last part of a URL, without its ending."""
    return Path(image.rstrip("/").rpartition("/")[2]).stem or "image"


def finding_paths(stem: Path) -> list[Path]:
    """The files of a finding: its figure, raw arrays and numbers."""
    return [stem.with_name(f"{stem.name}{suffix}") for suffix in FINDING_SUFFIXES]


def finding_to_dict(finding: "Finding", net_name: str) -> dict[str, Json]:
    """A finding as plain values, for JSON."""
    return {"net": net_name, **finding.metrics, "summary": list(finding.summary), "warnings": list(finding.warnings)}


def inspect_images(
    activity: str,
    inspect: "Callable[..., Finding]",
    images: Sequence[str],
    stems: Sequence[Path],
    net_name: str,
    max_pixels: int,
    draw_charts: "Callable[[Finding], Sequence[Image.Image]]" = lambda finding: (),
) -> tuple[list[dict[str, Json]], list[str]]:
    """Inspect images one by one, and write each finding's files at its stem.

    Args:
        activity: what the status line says, such as "explaining".
        inspect: takes an image, and `image_name` and `on_progress` by name.
        images: all are opened before work starts.
        stems: a path without ending for each image.
        net_name: the network's name, or its run's folder.
        max_pixels: the largest image that is read.
        draw_charts: the charts below a finding's figure.

    Returns:
        The numbers of each finding, as `finding_to_dict` has them, and the lines to print. There may be thousands of
        images, so nothing else is kept.
    """
    lazy_images = [lazy_image(image, max_pixels, cache=len(images) == 1) for image in images]
    results: list[dict[str, Json]] = []
    lines: list[str] = []
    with status_spinner(activity) as update_status:
        for image, open_image, stem in zip(images, lazy_images, stems, strict=True):
            finding = inspect(open_image(), image_name=image_name(image), on_progress=update_status)
            save_finding(finding, stem, net_name, draw_charts(finding))
            results.append(finding_to_dict(finding, net_name))
            lines += [*str(finding).split("\n"), describe_output_files(stem)]
    return results, lines


def save_finding(finding: "Finding", stem: Path, net_name: str, charts: "Sequence[Image.Image]" = ()) -> None:
    """Write a finding's figure (charts below it), raw arrays and numbers; each file appears complete or not at all."""
    from convolab.core.outputs import write_json_output
    from convolab.plots.images import save_image
    from convolab.plots.panels import render_finding, stack_vertically

    image_path, arrays_path, numbers_path = finding_paths(stem)
    figure = stack_vertically([render_finding(finding, f"{net_name}, "), *charts])
    save_image(figure, image_path, finding.tool)
    finding.save_arrays(arrays_path)
    write_json_output(numbers_path, finding.tool, finding_to_dict(finding, net_name))


def describe_output_files(stem: Path) -> str:
    return f"image: {stem}.png; raw arrays: {stem}.npz; numbers: {stem}.json"
