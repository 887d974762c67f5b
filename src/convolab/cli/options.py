"""What several commands take, and what they do with it first."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from convolab.cli.terminal import loading_bar, print_note
from convolab.core.errors import require

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The folder that holds the picture set, or where it is to go.",
        show_default="$CONVOLAB_DATA or ~/.cache/convolab",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads.", show_default="all cores")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.")]


def retired_option(option: str, replacement: str) -> OptionInfo:
    """A hidden option of the first edition: who types it is told the new word in one line.

    `option` may name its value too: "--score SOURCE".
    """
    name = option.partition(" ")[0]

    def refuse(value: str | int | bool | None) -> None:
        require(not value, f"{option} is now called {replacement}")

    return OptionInfo(param_decls=(name,), hidden=True, callback=refuse)


def set_passive_omp_wait() -> None:
    """Let torch's threads sleep while they wait for each other, where torch is still to be imported and the person did not choose.

    By default they spin. On two cores of which another program keeps one busy that took an explanation from 4 s to 28 s.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_torch(device: str, threads: int | None) -> None:
    """Set the number of threads, and refuse a device that is not there."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device_type = device.partition(":")[0]
    require(device_type in available, f"unknown device '{device}': give cpu, cuda or mps")
    require(available[device_type], f"this machine has no {device_type} that torch can use: give --device cpu")


def load_dataset_with_progress(name: str, data_dir: Path | None, size: int) -> Any:
    """Load a set with a bar while it is downloaded or read, and name the files that could not be read."""
    from convolab.data.catalog import load

    with loading_bar(name) as progress:
        splits = load(name, data_dir, image_size=size, on_progress=progress)
    for file in splits.unreadable:
        print_note(f"left out: {file}")
    return splits
