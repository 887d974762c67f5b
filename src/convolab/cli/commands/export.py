"""`convolab export`: a run's network for other programs, and what a paper needs of a run or a study."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, DataDir
from convolab.cli.terminal import print_json, print_lines, print_note
from convolab.core.errors import require, suggest

if TYPE_CHECKING:
    from convolab.studies.results import StudyResult
    from convolab.training.run import Run

FORMATS = ("onnx", "torch", "timm", "figures", "paper")


def export_command(
    source: Annotated[Path, typer.Argument(help="Folder of a run; for figures and paper also of a study.")],
    to: Annotated[str, typer.Option("--to", help="onnx, torch, timm, figures or paper.")],
    out: Annotated[Path, typer.Option(help="The file (.onnx, .pt2), or else the folder, to write.")],
    width: Annotated[str, typer.Option(help="Width of the figures, with its unit: mm, cm, in or pt.")] = "84mm",
    font_size: Annotated[str, typer.Option(help="Size of their text.")] = "8pt",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's network for other programs, or the figures, tables and methods of a run or a study for a paper."""
    require(to in FORMATS, f"unknown format '{to}': {suggest(to, FORMATS)}")
    if to in ("figures", "paper"):
        paths, note = export_results(open_source(source), to, out, width, font_size), ""
    else:
        paths, note = [out], export_network(source, to, out, data_dir)
    if as_json:
        print_json({"files": [str(path) for path in paths], "checked": note or None})
        return
    print_lines(f"wrote {paths[0]}" if len(paths) == 1 else f"wrote {len(paths)} files to {out}")
    if note:
        print_lines(note)


def export_network(folder: Path, to: str, out: Path, data_dir: Path | None) -> str:
    """Export a run's network; what was checked, in one line."""
    from convolab.core.outputs import require_outputs
    from convolab.reports.network_export import (
        export_kind,
        export_onnx,
        export_timm,
        export_torch,
        timm_paths,
    )
    from convolab.training.run import Run
    from convolab.training.run_folder import require_outside_runs

    run = Run(folder)
    require_outside_runs(out)
    require_outputs(export_kind(run), timm_paths(out)[1:] if to == "timm" else [out])
    export = {"onnx": export_onnx, "torch": export_torch, "timm": export_timm}[to]
    return export(run, out, run.load_splits(data_dir, on_message=print_note))


def export_results(source: "Run | StudyResult", to: str, out: Path, width: str, font_size: str) -> list[Path]:
    """Export the figures, or the tables and methods."""
    from convolab.reports.paper import export_paper
    from convolab.reports.paper_figures import export_figures, parse_length, require_figure_folder

    if to == "paper":
        return export_paper(source, out)
    sizes = parse_length(width, "--width"), parse_length(font_size, "--font-size")
    require_figure_folder(out)
    return export_figures(source, out, *sizes)


def open_source(folder: Path) -> "Run | StudyResult":
    """The run in a folder, or the results so far of the study there; nothing is trained or tested."""
    from convolab.studies.runner import read_study_result
    from convolab.studies.study_folder import STUDY_FILE
    from convolab.training.run import Run

    return read_study_result(folder) if (folder / STUDY_FILE).exists() else Run(folder)
