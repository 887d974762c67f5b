"""convolab compare: runs side by side, with what they support."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson
from convolab.cli.studies import Export, report_study, require_study_outputs
from convolab.core.errors import require
from convolab.core.outputs import COMPARISON


def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs, a folder that holds some, or STUDY:ARM of a study's; the others are compared with the first. "
            "A study's folder alone: what it has found so far."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML report to write.")] = Path("comparison.html"),
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs; runs that differ only in their seed form one arm. Nothing is trained."""
    require(out.suffix.lower() == ".html", f"--out {out}: the report is a page: give a name ending in .html")
    require_study_outputs(COMPARISON, out, export)
    from convolab.studies.compare import compare_named

    result = compare_named(runs)
    report_study(result, out, export, as_json, COMPARISON)
