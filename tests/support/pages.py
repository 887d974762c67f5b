"""The code on the pages of the documentation: found, run, and compared with what the page says it prints.

| a block of | is |
|---|---|
| `bash` | run: commands, each of which must succeed |
| `console` | run: commands after `$ `, and the lines that each prints; `...` stands for any lines; numbers within 2 %, or any |
|  | number where the command's comment says that they differ |
| `python` | run, in one namespace for each page |
| `pycon` | run as a doctest, in the same namespace |
| any, below a line that is a file's name and a colon | written to that file |
| anything else | not run, because it takes hours or needs files of your own: its commands must be known to the command line |
"""

import doctest
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md"), ROOT / "benchmarks/README.md"
    ]
)  # fmt: skip
BLOCK = re.compile(r"^(?:`([\w./]+)`:\n+)?```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = ("bash", "console", "python", "pycon")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
DOCTEST = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    language: str
    text: str
    file: str  # that it is written to; "" for none

    @property
    def commands(self) -> list[str]:
        """The command lines, those that go on in the next line in one piece."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def read_blocks(page: str) -> list[Block]:
    """The blocks of code of a page, in order."""
    found = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [Block(language, text, file) for file, language, text in found]


def is_run(block: Block) -> bool:
    """Whether the tests run it, or write it to a file that others run."""
    return bool(block.file) or block.language in RUN


def run_page(page: str) -> None:
    """Run the blocks of a page in the current folder. Raises AssertionError for what fails or prints something else."""
    names: dict[str, object] = {"__name__": "page"}
    for block in read_blocks(page):
        if block.file:
            Path(block.file).write_text(block.text)
        elif block.language == "bash":
            for command in block.commands:
                code, out, err = run_command(command)
                assert code == 0, (command, out, err)
        elif block.language == "console":
            for command, lines in console_examples(block.text):
                assert_printed(command, lines)
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), names)
        elif block.language == "pycon":
            run_doctest(block.text, names, page)


def run_command(command: str) -> tuple[int, str, str]:
    """Run `convolab ...` or `python FILE`. Returns the exit code and what was printed."""
    from convolab.cli.main import main

    arguments = shlex.split(command, comments=True)
    script = arguments[1] if arguments[0] == "python" else ""
    assert script or arguments[0] == "convolab", f"the tests cannot run {command!r}"
    out, err = StringIO(), StringIO()
    with patch("sys.argv", arguments), redirect_stdout(out), redirect_stderr(err):
        code = exit_code_of(lambda: runpy.run_path(script) if script else main())
    return code, out.getvalue(), err.getvalue()


def exit_code_of(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def console_examples(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, and the lines that follow each."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *lines = part.rstrip("\n").split("\n")
        yield command, lines


def assert_printed(command: str, lines: list[str]) -> None:
    """A command prints these lines: on its output, or as its error where it refuses something."""
    code, out, err = run_command(command)
    assert code in (0, 2), (command, out, err)
    printed = iter((err if code else out).splitlines())
    skip = False
    for expected in lines:
        if expected == "...":
            skip = True
            continue
        line = next(printed, None)
        while skip and line is not None and NUMBER.sub("N", line) != NUMBER.sub("N", expected):
            line = next(printed, None)
        assert line is not None, (command, expected, out, err)
        assert_same_line(line, expected, "differ" in command.partition("#")[2])
        skip = False
    assert skip or next(printed, None) is None, (command, out)


def numbers_in(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]


def assert_same_line(printed: str, expected: str, any_numbers: bool) -> None:
    """Same words; numbers within 2 %, because another processor rounds differently, or any numbers."""
    assert NUMBER.sub("N", printed) == NUMBER.sub("N", expected), (printed, expected)
    if any_numbers:
        return
    for got, shown in zip_longest(numbers_in(printed), numbers_in(expected)):
        assert got == pytest.approx(shown, rel=0.02, abs=2 if "epoch" in expected else 0), (printed, expected)


def run_doctest(text: str, names: dict[str, object], page: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, names, page, page, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=DOCTEST, verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    names |= test.globs
    assert runner.failures == 0, "".join(report)
