"""Options that several commands share, and what the commands do with them first."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.terminal import loading_bar, print_note
from convolab.core.errors import require
from convolab.core.text import pluralize
from convolab.core.types import Json

if TYPE_CHECKING:
    from convolab.data.splits import DatasetSplits

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, cifar10, cifar100, fashion_mnist, or your images, such as folder:PATH.",
        show_default="the recipe's, else digits",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a recipe key, e.g. optimizer.lr=0.1. Repeatable.")
]
EpochsOption = Annotated[
    int | None,
    typer.Option(help="Passes over the training images (training.epochs).", show_default="the recipe's, else 10"),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in a step (training.batch_size).", show_default="the recipe's, else 128")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the dataset, or where to download it to.", show_default="$CONVOLAB_DATA or ~/.cache/convolab"
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Number of CPU threads.", show_default="as many as cores are free")
]
Log = Annotated[
    str | None,
    typer.Option(
        help="Also log the epochs below their run's folder: tensorboard, mlflow, wandb (offline) or playback (filters and predictions)."
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run.")]
DEFAULT_NET = "efficientnet_lite0"  # `models.pretrained.DEFAULT_NETWORK`, without importing torch
NetOption = Annotated[str, typer.Option(help="efficientnet_lite0, 1 or 2, timm/NAME, or a run's folder.")]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The largest image that is read, in pixels; each takes up to 13 bytes of memory.",
        show_default="50,000,000",
    ),
]


def set_passive_omp_wait() -> None:
    """Let torch's threads sleep while they wait for each other; before torch is imported, and unless the user chose.

    By default they spin. With another program on one of two cores, that took an explanation from 4 s to 28 s.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_torch(device: str, threads: int | None) -> str | None:
    """Set the number of threads; None takes as many as cores are free while torch is imported, or $OMP_NUM_THREADS.

    Returns what a person should know of it, if these are not all cores. Raises LabError for a device that this machine lacks.
    """
    from convolab.core.free_cores import THREADS_VARIABLE, ProcessorTimes, count_free_cores, describe_busy, use_threads

    chosen = os.environ.get(THREADS_VARIABLE, "1")
    require(
        re.fullmatch(r"\s*\+?0*[1-9][0-9]{0,5}\s*(,[0-9, ]*)?", chosen) is not None,
        f"{THREADS_VARIABLE}={chosen[:40]!r} is not a number of threads: give one above 0, or unset it",
    )
    times = ProcessorTimes.now()
    import torch

    from convolab.core.environment import count_usable_cores, require_device, tune_malloc

    tune_malloc()
    cores = count_usable_cores()
    require(
        threads is None or threads <= max(cores, torch.get_num_threads()),
        f"--threads {threads}: this machine has {pluralize(cores, 'core')}; more threads than that are slower",
    )
    note = None
    if threads:
        use_threads(threads)
    elif THREADS_VARIABLE not in os.environ:
        before = torch.get_num_threads()  # the cores, or with hyper-threading half of them
        use_threads(min(before, count_free_cores(times)))
        note = describe_busy(torch.get_num_threads(), before) if torch.get_num_threads() < before else None
    require_device(device)
    return note


def recipe_changes(named: Mapping[str, Json], overrides: Sequence[str] | None) -> dict[str, Json]:
    """The recipe keys that a command's own options give, None for those that were left out, and that --set gives.

    Raises LabError for a key that is given twice.

    >>> recipe_changes({"training.epochs": 3, "optimizer.lr": None}, ["optimizer.lr=0.1"])
    {'training.epochs': 3, 'optimizer.lr': 0.1}
    """
    from convolab.training.recipe import parse_override

    changes: dict[str, Json] = {key: value for key, value in named.items() if value is not None}
    own = set(changes)
    for key, value in map(parse_override, overrides or ()):
        how = "by its own option and by --set" if key in own else "by --set"
        require(key not in changes, f"{key} is given twice, {how}: leave one of them out")
        changes[key] = value
    return changes


def load_dataset_with_progress(name: str, data_dir: Path | None, image_size: int) -> "DatasetSplits":
    """Load a dataset with a bar while it is downloaded or read, and say what is wrong with its images."""
    from convolab.data.catalog import load

    with loading_bar(name) as progress:
        splits = load(name, data_dir, image_size=image_size, on_progress=progress, on_message=print_note)
    for file in splits.unreadable:
        print_note(f"skipped (unreadable): {file}")
    for note in splits.notes:
        print_note(note)
    return splits
