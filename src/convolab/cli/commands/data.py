"""Datasets: list, preview, download, clean."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.groups import LabCommand, LabGroup
from convolab.cli.options import AsJson, DataDir, load_dataset_with_progress
from convolab.cli.terminal import loading_bar, print_json, print_lines, print_note, print_table
from convolab.core.errors import require
from convolab.core.outputs import CONTACT_SHEET, require_outputs
from convolab.core.text import format_bytes, join_with_and, pluralize

data_app = typer.Typer(
    help="Datasets: list, preview, download, clean.", cls=LabGroup, no_args_is_help=True, add_completion=False
)
ACTIVITIES = {"train": "training", "validation": "validation", "test": "testing"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@data_app.command("list", cls=LabCommand)
def list_datasets_command(as_json: AsJson = False) -> None:
    """List the datasets."""
    from convolab.data.catalog import DATASETS, OWN_DATA

    if as_json:
        print_json(
            [
                {
                    "name": info.name,
                    "description": info.description,
                    "shape": info.shape,
                    "num_classes": info.num_classes,
                    "num_train": info.num_train,
                    "num_test": info.num_test,
                    "download_size_mb": info.download_size_mb,
                    "default_augment": info.default_augment,
                }
                for info in DATASETS.values()
            ]
        )
        return
    rows = [
        [
            info.name,
            "x".join(map(str, info.shape)),
            str(info.num_classes),
            f"{info.num_train:,}",
            f"{info.num_test:,}",
            f"{info.download_size_mb:g} MB" if info.download_size_mb else "bundled",
            info.description,
        ]
        for info in DATASETS.values()
    ]
    rows += [[kind.example, "any", "any", "", "", "your images", kind.description] for kind in OWN_DATA.values()]
    print_table(["name", "shape", "classes", "train", "test", "download", "description"], rows)


@data_app.command("show", cls=LabCommand)
def show_dataset_command(
    name: Annotated[str, typer.Argument(help="Name of a dataset, or your images, such as folder:PATH.")],
    out: Annotated[Path, typer.Option(help="The image file to write.")] = Path("contact_sheet.png"),
    data_dir: DataDir = None,
    image_size: Annotated[int, typer.Option(help="Side length that your own images are resized to.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Write a contact sheet with the first images of each class."""
    from convolab.plots.images import contact_sheet, save_image

    require(out.suffix.lower() in IMAGE_SUFFIXES, f"--out {out}: end it in .png, .jpg or .webp")
    require_outputs(CONTACT_SHEET, [out])
    splits = load_dataset_with_progress(name, data_dir, image_size)
    save_image(contact_sheet(splits.train), out, CONTACT_SHEET)
    if as_json:
        print_json(
            {
                "name": name,
                "shape": splits.train.shape,
                "num_train": len(splits.train),
                "num_validation": len(splits.validation) if splits.validation is not None else 0,
                "num_test": len(splits.test) if splits.has_test else 0,
                "classes": splits.train.classes,
                "unreadable_files": splits.unreadable,
                "notes": splits.notes,
                "contact_sheet": str(out),
            }
        )
    else:
        others = [f"{len(dataset):,} for {ACTIVITIES[split]}" for split, dataset in splits.by_name.items()][1:]
        print_lines(f"{', '.join([f'{splits.train!r} for training', *others])}; contact sheet: {out}")


@data_app.command("download", cls=LabCommand)
def download_dataset_command(
    name: Annotated[str, typer.Argument(help="Name of a dataset.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Download a dataset from its official URL and verify its checksum; resumes a partial download."""
    from convolab.data.catalog import download_dataset

    with loading_bar(name) as progress:
        folder = download_dataset(name, data_dir, on_progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print_lines(f"{name} is in {folder}")


@data_app.command("clean", cls=LabCommand)
def clean_data_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Datasets and caches to delete.", show_default="all")
    ] = None,
    data_dir: DataDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the downloaded datasets and caches with their sizes, and delete them after a question."""
    from convolab.data.storage import clean, find_stored

    items = find_stored(names or None, data_dir)
    wanted = list(dict.fromkeys(names or (item.name for item in items)))
    if not yes and wanted:
        for item in items:
            files = pluralize(len(item.files), "file")
            print_note(f"{item.kind} {item.name}: {format_bytes(item.num_bytes)}, {files} in {item.folder}")
        require(sys.stdin.isatty(), "nothing is deleted without a question: add --yes where nobody can answer")
        if not typer.confirm(f"Delete {join_with_and(wanted)}?", err=True):
            raise typer.Exit(1)
    freed = clean(wanted, data_dir)
    if as_json:
        print_json({"deleted": wanted, "bytes": freed})
    elif wanted:
        print_lines(f"deleted {join_with_and(wanted)}: {format_bytes(freed)}")
    else:
        print_lines("there is nothing to delete")
