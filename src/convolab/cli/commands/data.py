"""Picture sets: list, look at, download."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson, DataDir, load_dataset_with_progress
from convolab.cli.terminal import loading_bar, print_json, print_table
from convolab.core.errors import require

data_app = typer.Typer(help="Picture sets: list, look at, download.", no_args_is_help=True)


@data_app.command("list")
def list_datasets_command(as_json: AsJson = False) -> None:
    """List the picture sets."""
    from convolab.data.catalog import DATASETS

    if as_json:
        print_json(
            [
                {
                    "name": s.name,
                    "summary": s.description,
                    "shape": s.shape,
                    "classes": s.num_classes,
                    "train": s.num_train,
                    "test": s.num_test,
                    "megabytes": s.download_size_mb,
                    "augment": s.default_augment,
                }
                for s in DATASETS.values()
            ]
        )
        return
    rows = [
        [
            s.name,
            "x".join(map(str, s.shape)),
            str(s.num_classes),
            f"{s.num_train:,}",
            f"{s.num_test:,}",
            f"{s.download_size_mb:g} MB" if s.download_size_mb else "embedded",
            s.description,
        ]
        for s in DATASETS.values()
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
    print_table(["name", "shape", "classes", "train", "test", "download", "what it shows"], rows)


@data_app.command("show")
def show_dataset_command(
    name: Annotated[str, typer.Argument(help="A picture set's name, or folder:PATH.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("sheet.png"),
    data_dir: DataDir = None,
    size: Annotated[int, typer.Option(min=8, max=64, help="Side to which a folder's pictures are resized.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Write a sheet with the first pictures of each class."""
    from convolab.plots import training as training_plots

    require(out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"), f"--out {out}: end it in .png, .jpg or .webp")
    splits = load_dataset_with_progress(name, data_dir, size)
    training_plots.save_image(training_plots.contact_sheet(splits.train), out)
    overview = {
        "name": name,
        "shape": splits.train.shape,
        "train": len(splits.train),
        "test": len(splits.test),
        "classes": splits.train.classes,
        "unreadable": splits.unreadable,
        "sheet": str(out),
    }
    if as_json:
        print_json(overview)
    else:
        print(f"{splits.train!r} to train on, {len(splits.test):,} to test on; sheet: {out}")


@data_app.command("fetch")
def download_dataset_command(
    name: Annotated[str, typer.Argument(help="A picture set's name.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Download a picture set from its official address, checked by its checksum; goes on where it was cut off."""
    from convolab.data.catalog import download_dataset

    with loading_bar(name) as progress:
        folder = download_dataset(name, data_dir, on_progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")
