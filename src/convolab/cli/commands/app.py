"""`convolab app`: the laboratory in a browser, served on this machine."""

import os
import sys
from contextvars import Context
from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import DataDir
from convolab.cli.terminal import print_lines, print_note
from convolab.core.errors import LabError, require

DEFAULT_RUNS, STUDIES = Path("runs"), Path("studies")  # where the commands put runs, and studies


def app_command(
    runs: Annotated[
        Path, typer.Option(help="The folder of runs and studies that the page shows and adds to.")
    ] = DEFAULT_RUNS,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Your own images to offer too, such as folder:PATH. Repeatable.")
    ] = None,
    net: Annotated[
        list[str] | None, typer.Option("--net", help="Your own network to offer too, as file.py:Name. Repeatable.")
    ] = None,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; 0: any free one.", show_default="a free one near 8360"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at. Another one than this machine's own needs a printed token.")
    ] = "127.0.0.1",
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
) -> None:
    """Open the laboratory as a page in the browser: train, compare, look inside, by clicking.

    Without --host only this machine can open it. What trains goes on when the page or this command ends.
    """
    require(not runs.exists() or runs.is_dir(), f"{runs} is a file: give the folder of your runs")
    try:
        from convolab.app.folders import RunsFolder
        from convolab.app.jobs import Jobs
        from convolab.app.server import AppState, serve_page
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise LabError("the page needs starlette and uvicorn: pip install 'convolab[app]'") from error
    own_data, own_nets = tuple(data or ()), tuple(net or ())
    require_own(own_data, own_nets)
    state = AppState(RunsFolder(runs), Jobs(runs), own_data, own_nets, data_dir)

    def on_ready(address: str) -> None:
        print_lines(f"the page is at {address}  (Ctrl-C ends it)")
        if runs == DEFAULT_RUNS and STUDIES.is_dir():
            print_note(f"{STUDIES}/ is not shown here: convolab app --runs {STUDIES}")
        sys.stdout.flush()
        if not no_open:
            open_browser(address)

    # In a context of its own: --trust is for what this command names, and not for whatever the page is asked to open.
    Context().run(serve_page, state, host, port, on_ready, print_note)
    print_note("the page has ended" + ("; the training that it started goes on" if state.jobs.children else ""))


def require_own(data: tuple[str, ...], nets: tuple[str, ...]) -> None:
    """Raise LabError for names that are none; code that is named here may run from now on, as with every command."""
    if data:
        from convolab.data.catalog import default_augmentation

        for name in data:
            default_augmentation(name)
    if nets:
        from convolab.models.registry import factory_signature, trust_named

        for name in nets:
            trust_named(name)
            factory_signature(name)


def open_browser(address: str) -> None:
    """Open a browser where there is a screen: in a terminal alone one might take its place."""
    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_screen:
        import webbrowser

        webbrowser.open(address)
