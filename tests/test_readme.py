"""The examples of the README give what the README says."""

import re
import shlex
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def examples() -> list[tuple[str, list[str]]]:
    """The commands of the console block, and the lines that follow each."""
    block = re.search(r"```console\n(.*?)```", README, re.DOTALL).group(1)
    parts = re.split(r"^\$ convolab ", block, flags=re.MULTILINE)[1:]
    return [(lines[0], lines[1:]) for lines in (part.rstrip("\n").split("\n") for part in parts)]


def numbers_in(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]


def assert_same_line(printed: str, expected: str) -> None:
    """Same words; numbers within 2 %, because another processor rounds differently."""
    assert NUMBER.sub("N", printed) == NUMBER.sub("N", expected)
    for got, shown in zip_longest(numbers_in(printed), numbers_in(expected)):
        assert got == pytest.approx(shown, rel=0.02, abs=2 if "epoch" in expected else 0), (printed, expected)


def exit_code_of(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
def test_each_example_prints_the_lines_that_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from convolab.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert len(examples()) == 6
    for command, lines in examples():
        monkeypatch.setattr("sys.argv", ["convolab", *shlex.split(command)])
        capsys.readouterr()
        assert exit_code_of(main) == 0, command
        printed = iter(capsys.readouterr().out.splitlines())
        skip = False
        for expected in lines:
            if expected == "...":
                skip = True
                continue
            line = next(printed)
            while skip and NUMBER.sub("N", line) != NUMBER.sub("N", expected):
                line = next(printed)
            assert_same_line(line, expected)
            skip = False
        assert skip or next(printed, None) is None, command


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    path = ROOT / page
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len(README.splitlines()) <= 90
