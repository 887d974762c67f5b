"""What several commands take, and what they do with it first."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.cli.terminal import download_bar, say
from convolab.core.errors import need

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


def patient_threads() -> None:
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
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = device.partition(":")[0]
    need(kind in present, f"unknown device '{device}': give cpu, cuda or mps")
    need(present[kind], f"this machine has no {kind} that torch can use: give --device cpu")


def load_pictures(name: str, data_dir: Path | None, size: int) -> Any:
    """Load a set with a bar while it is downloaded or read, and name the files that could not be read."""
    from convolab.data.catalog import load

    with download_bar(name) as progress:
        pictures = load(name, data_dir, size=size, on_progress=progress)
    for file in pictures.unreadable:
        say(f"left out: {file}")
    return pictures
