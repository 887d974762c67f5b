"""Picture sets: list, look at, download."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson, DataDir, load_pictures
from convolab.cli.terminal import download_bar, print_json, table
from convolab.core.errors import need

app = typer.Typer(help="Picture sets: list, look at, download.", no_args_is_help=True)


@app.command("list")
def list_sets(as_json: AsJson = False) -> None:
    """List the picture sets."""
    from convolab.data.catalog import SOURCES

    if as_json:
        print_json(
            [
                {
                    "name": s.name,
                    "summary": s.summary,
                    "shape": s.shape,
                    "classes": s.classes,
                    "train": s.train,
                    "test": s.test,
                    "megabytes": s.megabytes,
                    "augment": s.augment,
                }
                for s in SOURCES.values()
            ]
        )
        return
    rows = [
        [
            s.name,
            "x".join(map(str, s.shape)),
            str(s.classes),
            f"{s.train:,}",
            f"{s.test:,}",
            f"{s.megabytes:g} MB" if s.megabytes else "embedded",
            s.summary,
        ]
        for s in SOURCES.values()
    ]
    rows.append(
        [
            "folder:PATH",
            "any",
            "any",
            "",
            "",
            "yours",
            "a folder of pictures per class; train/ and test/ above them if there are both",
        ]
    )
    table(["name", "shape", "classes", "train", "test", "download", "what it shows"], rows)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A picture set's name, or folder:PATH.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("sheet.png"),
    data_dir: DataDir = None,
    size: Annotated[int, typer.Option(min=8, max=64, help="Side to which a folder's pictures are resized.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Write a sheet with the first pictures of each class."""
    from convolab.plots import training as training_plots

    need(out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"), f"--out {out}: end it in .png, .jpg or .webp")
    pictures = load_pictures(name, data_dir, size)
    training_plots.save_image(training_plots.sheet(pictures.train), out)
    facts = {
        "name": name,
        "shape": pictures.train.shape,
        "train": len(pictures.train),
        "test": len(pictures.test),
        "classes": pictures.train.classes,
        "unreadable": pictures.unreadable,
        "sheet": str(out),
    }
    if as_json:
        print_json(facts)
    else:
        print(f"{pictures.train!r} to train on, {len(pictures.test):,} to test on; sheet: {out}")


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A picture set's name.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Download a picture set from its official address, checked by its checksum; goes on where it was cut off."""
    from convolab.data.catalog import fetch

    with download_bar(name) as progress:
        folder = fetch(name, data_dir, on_progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")
