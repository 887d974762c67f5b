"""What a lens is given and leaves behind: pictures in their turn; STEM.png, STEM.npz and STEM.json, each whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolab.core.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor

    from convolab.inspection.result import Finding

FOREIGN_SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".svg",
    ".pdf",
    ".html",
}  # endings that are not ours


def lazy_image(image: str, max_pixels: int, cache: bool) -> "Callable[[], Tensor]":
    """A picture, opened now, so that a bad one is refused; unless it is kept, a file is read again in its turn: memory holds one."""
    from convolab.data.image_io import read_image

    photo = read_image(image, max_pixels)
    return (lambda: photo) if cache or "://" in image else (lambda: read_image(image, max_pixels))


def output_stem(command: str, image: str, out: Path | None) -> Path:
    """Where a finding's files go, without their endings: `out`, whose .png is dropped, else LENS-NAME in this folder.

    Raises LabError for an `out` that asks for another kind of picture.

    >>> stem_for("explain", "photos/cat.jpg", None), stem_for("fool", "chelsea", Path("here/cat.png"))
    (PosixPath('explain-cat'), PosixPath('here/cat'))
    """
    if out is None:
        return Path(f"{command}-{image_name(image)}")
    require(
        out.suffix.lower() not in FOREIGN_SUFFIXES,
        f"--out {out}: pictures are written as .png: give a name with that ending, or with none",
    )
    return out.with_suffix("") if out.suffix.lower() in (".png", ".npz", ".json") else out


def output_stems(command: str, images: list[str], out: Path | None) -> list[Path]:
    """Where each picture's files go: those of several into the folder `out`. Raises LabError if two would be called the same."""
    if len(images) == 1:
        return [output_stem(command, images[0], out)]
    require(
        out is None or out.suffix != ".png", f"{len(images)} pictures do not go into one {out}: give --out a folder"
    )
    names = [output_stem(command, picture, None).name for picture in images]
    repeated = {name for name in names if names.count(name) > 1}
    require(
        not repeated,
        f"several pictures would be called {', '.join(sorted(repeated))}: {command} them one by one, each with its --out",
    )
    return [(out or Path()) / name for name in names]


def image_name(image: str) -> str:
    """What a picture is called: a file's name, or the last part of an address, without its ending."""
    return Path(image.rstrip("/").rpartition("/")[2]).stem or "picture"


def finding_to_dict(finding: "Finding", net: str) -> dict[str, Any]:
    """A finding as plain values, for JSON."""
    return {"net": net, **finding.metrics, "words": list(finding.summary), "warnings": list(finding.warnings)}


def save_finding(finding: "Finding", stem: Path, net: str, charts: "list[Image.Image] | tuple[()]" = ()) -> None:
    """Write a finding's picture (charts below it), raw arrays and numbers."""
    from convolab.core.files import write_json
    from convolab.plots.panels import render_finding, save_panel_image, stack_vertically

    image = render_finding(finding, f"{net}, ")
    save_panel_image(stack_vertically(image, charts) if charts else image, stem.with_name(stem.name + ".png"))
    finding.save_arrays(stem.with_name(stem.name + ".npz"))
    write_json(stem.with_name(stem.name + ".json"), finding_to_dict(finding, net))


def describe_output_files(stem: Path) -> str:
    return f"picture: {stem}.png; raw arrays: {stem}.npz; numbers: {stem}.json"
