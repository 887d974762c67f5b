"""What a lens is given and leaves behind: pictures in their turn; STEM.png, STEM.npz and STEM.json, each whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolab.core.errors import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor

    from convolab.inspection.result import Finding

OTHERS = {
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


def opener(picture: str, max_pixels: int, keep: bool) -> "Callable[[], Tensor]":
    """A picture, opened now, so that a bad one is refused; unless it is kept, a file is read again in its turn: memory holds one."""
    from convolab.data.image_io import open_photo

    photo = open_photo(picture, max_pixels)
    return (lambda: photo) if keep or "://" in picture else (lambda: open_photo(picture, max_pixels))


def stem_for(lens: str, what: str, out: Path | None) -> Path:
    """Where a finding's files go, without their endings: `out`, whose .png is dropped, else LENS-NAME in this folder.

    Raises LabError for an `out` that asks for another kind of picture.

    >>> stem_for("explain", "photos/cat.jpg", None), stem_for("fool", "chelsea", Path("here/cat.png"))
    (PosixPath('explain-cat'), PosixPath('here/cat'))
    """
    if out is None:
        return Path(f"{lens}-{name_of(what)}")
    need(
        out.suffix.lower() not in OTHERS,
        f"--out {out}: pictures are written as .png: give a name with that ending, or with none",
    )
    return out.with_suffix("") if out.suffix.lower() in (".png", ".npz", ".json") else out


def stems_for(lens: str, pictures: list[str], out: Path | None) -> list[Path]:
    """Where each picture's files go: those of several into the folder `out`. Raises LabError if two would be called the same."""
    if len(pictures) == 1:
        return [stem_for(lens, pictures[0], out)]
    need(out is None or out.suffix != ".png", f"{len(pictures)} pictures do not go into one {out}: give --out a folder")
    names = [stem_for(lens, picture, None).name for picture in pictures]
    repeated = {name for name in names if names.count(name) > 1}
    need(
        not repeated,
        f"several pictures would be called {', '.join(sorted(repeated))}: {lens} them one by one, each with its --out",
    )
    return [(out or Path()) / name for name in names]


def name_of(what: str) -> str:
    """What a picture is called: a file's name, or the last part of an address, without its ending."""
    return Path(what.rstrip("/").rpartition("/")[2]).stem or "picture"


def numbers_of(found: "Finding", net: str) -> dict[str, Any]:
    """A finding as plain values, for JSON."""
    return {"net": net, **found.numbers, "words": list(found.words), "warnings": list(found.warnings)}


def keep(found: "Finding", stem: Path, net: str, charts: "list[Image.Image] | tuple[()]" = ()) -> None:
    """Write a finding's picture (charts below it), raw arrays and numbers."""
    from convolab.core.files import write_json
    from convolab.plots.panels import below, draw_finding, save_picture

    picture = draw_finding(found, f"{net}, ")
    save_picture(below(picture, charts) if charts else picture, stem.with_name(stem.name + ".png"))
    found.save_arrays(stem.with_name(stem.name + ".npz"))
    write_json(stem.with_name(stem.name + ".json"), numbers_of(found, net))


def files_said(stem: Path) -> str:
    return f"picture: {stem}.png; raw arrays: {stem}.npz; numbers: {stem}.json"
