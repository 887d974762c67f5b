"""What explain, fool and locate are given and leave behind: images one by one; STEM.png, STEM.npz and STEM.json."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convolab.cli.options import DEFAULT_NET
from convolab.cli.terminal import status_spinner
from convolab.core.errors import require
from convolab.core.escape import file_name_part
from convolab.core.types import Json

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from convolab.inspection.result import Finding

FOREIGN_SUFFIXES = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".html", ".csv"}
MAX_NET_NAME = 60  # characters of a network in the name of a file
FINDING_SUFFIXES = (".png", ".npz", ".json")


def lazy_image(image: str, max_pixels: int | None, cache: bool) -> "Callable[[], Tensor]":
    """Open an image now, so that a bad one is refused, and return what gives its pixels.

    Without `cache` a file is read again when it is needed, so memory holds one image at a time. What came from an
    address is kept.
    """
    from convolab.data.image_io import read_image

    pixels = read_image(image, max_pixels)
    return (lambda: pixels) if cache or "://" in image else (lambda: read_image(image, max_pixels))


def output_stem(
    command: str,
    image: str,
    out: Path | None,
    net: str = DEFAULT_NET,
    suffixes: Sequence[str] = FINDING_SUFFIXES,
) -> Path:
    """Where files go, by default a finding's, without their endings: `out` without its own, else COMMAND-NAME in this folder.

    Another network than the default one is part of the name, so that the files of two do not replace each other.

    Raises LabError for an `out` that asks for another kind of file.

    >>> output_stem("explain", "photos/cat.jpg", None), output_stem("fool", "chelsea", Path("maps/cat.png"))
    (PosixPath('explain-cat'), PosixPath('maps/cat'))
    >>> output_stem("explain", "photos/cat.jpg", None, "runs/first")
    PosixPath('explain-cat-runs-first')
    """
    if out is None:
        name = image_name(image)
        of_net = "" if net == DEFAULT_NET else f"-{net_file_name(net)}"
        return Path(f"{command}-{name if name.isprintable() else file_name_part(name)}{of_net}")
    require(
        out.suffix.lower() not in FOREIGN_SUFFIXES - set(suffixes),
        f"--out {out}: {command} writes {', '.join(suffixes)}: give a name with one of these endings, or with none",
    )
    return out.with_suffix("") if out.suffix.lower() in suffixes else out


def net_file_name(net: str) -> str:
    """A network's name or folder as a part of a file's name; of a long path the end.

    >>> net_file_name("timm/resnet18.a1"), net_file_name("./runs/first/")
    ('timm-resnet18-a1', 'runs-first')
    """
    path = Path(net)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return file_name_part(str(path)[-MAX_NET_NAME:])


def output_stems(command: str, images: Sequence[str], out: Path | None, net: str) -> list[Path]:
    """Where each image's files go; those of several into the folder `out`. Raises LabError for two of one name."""
    if len(images) == 1:
        return [output_stem(command, images[0], out, net)]
    require(out is None or out.suffix != ".png", f"{len(images)} images do not fit in one {out}: give --out a folder")
    names = [output_stem(command, image, None, DEFAULT_NET if out else net).name for image in images]
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


def inspect_images(
    activity: str,
    inspect: "Callable[..., Finding]",
    images: Sequence[str],
    stems: Sequence[Path],
    net_name: str,
    max_pixels: int | None,
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
        The numbers of each finding, as `Finding.to_dict` has them, and the lines to print. There may be thousands of
        images, so nothing else is kept.
    """
    lazy_images = [lazy_image(image, max_pixels, cache=len(images) == 1) for image in images]
    results: list[dict[str, Json]] = []
    lines: list[str] = []
    with status_spinner(activity) as update_status:
        for image, open_image, stem in zip(images, lazy_images, stems, strict=True):
            finding = inspect(open_image(), image_name=image_name(image), on_progress=update_status)
            finding = replace(finding, net=net_name)
            save_finding(finding, stem, draw_charts(finding))
            results.append(finding.to_dict())
            lines += [*str(finding).split("\n"), describe_output_files(stem)]
    return results, lines


def save_finding(finding: "Finding", stem: Path, charts: "Sequence[Image.Image]" = ()) -> None:
    """Write a finding's figure (charts below it), raw arrays and numbers; each file appears complete or not at all."""
    from convolab.core.outputs import write_json_output
    from convolab.plots.images import save_image
    from convolab.plots.panels import render_finding, stack_vertically

    image_path, arrays_path, numbers_path = finding_paths(stem)
    figure = stack_vertically([render_finding(finding), *charts])
    save_image(figure, image_path, finding.tool)
    finding.save_arrays(arrays_path)
    write_json_output(numbers_path, finding.tool, finding.to_dict())


def describe_output_files(stem: Path) -> str:
    return f"image: {stem}.png; raw arrays: {stem}.npz; numbers: {stem}.json"
