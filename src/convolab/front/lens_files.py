"""What a lens leaves behind: STEM.png, STEM.npz and STEM.json of one name, each whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolab.ground.errors import need

if TYPE_CHECKING:
    from PIL import Image

    from convolab.lenses.finding import Finding

OTHERS = {".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".svg", ".pdf", ".html"}  # endings that are not ours


def stem_for(lens: str, what: str, out: Path | None) -> Path:
    """Where a finding's files go, without their endings: `out`, whose .png is dropped, else LENS-NAME in this folder.

    Raises LabError for an `out` that asks for another kind of picture.

    >>> stem_for("explain", "photos/cat.jpg", None), stem_for("fool", "chelsea", Path("here/cat.png"))
    (PosixPath('explain-cat'), PosixPath('here/cat'))
    """
    if out is None:
        return Path(f"{lens}-{name_of(what)}")
    need(out.suffix.lower() not in OTHERS, f"--out {out}: pictures are written as .png: give a name with that ending, or with none")
    return out.with_suffix("") if out.suffix.lower() in (".png", ".npz", ".json") else out


def name_of(what: str) -> str:
    """What a picture is called: a file's name, or the last part of an address, without its ending."""
    return Path(what.rstrip("/").rpartition("/")[2]).stem or "picture"


def numbers_of(found: "Finding", net: str) -> dict[str, Any]:
    """A finding as plain values, for JSON."""
    return {"net": net, **found.numbers, "words": list(found.words), "warnings": list(found.warnings)}


def keep(found: "Finding", stem: Path, net: str, charts: "list[Image.Image] | tuple[()]" = ()) -> None:
    """Write a finding's picture (charts below it), raw arrays and numbers."""
    from convolab.front.lens_pictures import below, draw_finding, save_picture
    from convolab.ground.files import write_json

    picture = draw_finding(found, f"{net}, ")
    save_picture(below(picture, charts) if charts else picture, stem.with_name(stem.name + ".png"))
    found.save_arrays(stem.with_name(stem.name + ".npz"))
    write_json(stem.with_name(stem.name + ".json"), numbers_of(found, net))


def files_said(stem: Path) -> str:
    return f"picture: {stem}.png; raw arrays: {stem}.npz; numbers: {stem}.json"
