"""A process that has imported convolab once and forks a child for every command: a command then starts at once.

The children are real processes that share nothing but the disk. Only the drawing of charts is left out: it takes a
second each, and a stub writes a file of the right kind in its place. The server uses one thread and computes nothing
itself, as forking requires.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
LONGEST_PAUSE = 0.05  # seconds before a file is changed
TIMEOUT = 300.0  # seconds after which a command counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    arguments: list[str]
    code: int | None  # None: it hung, and was killed
    output: str
    errors: str

    @property
    def is_orderly(self) -> bool:
        """Whether it ended with 0, or with one line and 2."""
        lines = self.errors.splitlines()
        return self.code == 0 or (self.code == 2 and len(lines) == 1 and lines[0].startswith("convolab: "))


class CommandServer:
    """The tests' side."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def run(
        self, *commands: Sequence[str], folder: Path, delays: Sequence[float] = (), pauses: str | None = None
    ) -> list[Ended]:
        """Run commands at the same time in a folder, and wait for all.

        Args:
            commands: their arguments.
            folder: the working directory.
            delays: how long each waits first, in seconds.
            pauses: a seed; a command then pauses at random before it changes a file, so that another one comes between.
        """
        delays = delays or [0.0] * len(commands)
        task = {"commands": list(zip(commands, delays, strict=True)), "folder": str(folder), "pauses": pauses}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(task), file=self.process.stdin, flush=True)
        return [Ended(**values) for values in json.loads(self.process.stdout.readline())]


@contextmanager
def command_server() -> Iterator[CommandServer]:
    """A server, as long as the block lasts."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield CommandServer(process)
        process.stdin.close()


# ---------------------------------------------------------------- the server's side


def warm_up() -> None:
    """Import all that commands need, and start the server that a study's workers are forked from."""
    import platform

    import altair
    import scipy.stats
    import torch

    import convolab.cli.commands.compare
    import convolab.cli.commands.resume
    import convolab.cli.commands.runs
    import convolab.cli.commands.study
    import convolab.cli.commands.test
    import convolab.cli.commands.train
    import convolab.plots.style
    import convolab.plots.training
    import convolab.reports.export
    import convolab.reports.studies
    from convolab.data import catalog
    from convolab.studies.forkserver import worker_context

    torch.set_num_threads(1)
    blank = altair.Chart({"values": []}).mark_point()
    convolab.plots.training.training_curves_chart = lambda *_: blank
    convolab.plots.training.confusion_matrix_chart = lambda *_: blank
    convolab.plots.style.render_png = lambda svg, scale: b"\x89PNG\r\n\x1a\n" + bytes(12)
    convolab.plots.style.render_svg = lambda chart: "<svg/>"
    digits = catalog.load("digits")
    for module in list(sys.modules.values()):  # read once for all children
        if getattr(module, "load", None) is catalog.load and module is not catalog:
            module.load = lambda *_, **__: digits
    catalog.load = lambda *_, **__: digits
    scipy.stats.t.ppf(0.975, 2)  # imports more
    platform.platform()  # called once and cached: it starts a process
    worker_context()
    # A child uses this process's server, and could not wait for it.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None


def pause_before_changes(seed: str) -> None:
    """From now on wait a moment before every third change of a file or a folder."""
    rng = random.Random(seed)

    def pausing(function: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*arguments: Any, **options: Any) -> Any:
            if rng.random() < 1 / 3:
                time.sleep(rng.uniform(0, LONGEST_PAUSE))
            return function(*arguments, **options)

        return paused

    for name in ("replace", "fsync", "unlink", "mkdir", "rmdir", "link"):
        setattr(os, name, pausing(getattr(os, name)))


def run_child(arguments: list[str], delay: float, folder: str, stem: Path, pauses: str | None) -> None:
    """The life of one child."""
    code: Any = 0
    try:
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(stem.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["convolab", *arguments]
        time.sleep(delay)
        if pauses is not None:
            pause_before_changes(f"{pauses} {stem.name}")
        from convolab.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Read one task per line; fork a child for each of its commands; print how they ended as one line of JSON."""
    import tempfile

    warm_up()
    streams = Path(tempfile.mkdtemp(prefix="commands-"))
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        children: dict[int, int] = {}
        for number, (arguments, delay) in enumerate(task["commands"]):
            child = os.fork()
            if child == 0:
                run_child(arguments, delay, task["folder"], streams / str(number), task["pauses"])
            children[child] = number
        codes: dict[int, int | None] = {}
        deadline = time.monotonic() + TIMEOUT
        while children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child in children:
                codes[children.pop(child)] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                for child, number in children.items():
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    codes[number] = None
                children.clear()
            elif not child:
                time.sleep(0.002)
        results = [
            {
                "arguments": arguments,
                "code": codes[number],
                "output": (streams / f"{number}.out").read_text(errors="replace"),
                "errors": (streams / f"{number}.err").read_text(errors="replace"),
            }
            for number, (arguments, _) in enumerate(task["commands"])
        ]
        print(json.dumps(results), flush=True)


if __name__ == "__main__":
    serve()
