"""Any two commands at once on one folder: each works or is refused in one line, and the folder stays whole.

They start at random offsets from a fixed seed, as real processes. CONVOLAB_ROUNDS is the number of rounds of a pair:
3 in `make test`, 20 in `make long`, 200 in `make soak`.
"""

import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.callbacks import FunctionCallbacks
from support.command_server import CommandServer, Ended, command_server
from support.run_contents import run_contents

from convolab.core.free_cores import threads_lent
from convolab.data.catalog import load
from convolab.studies.study import Study
from convolab.training.recipe import Recipe
from convolab.training.run import Run

ROUNDS_OF_MAKE_TEST, ROUNDS_OF_MAKE_LONG, ROUNDS_OF_MAKE_SOAK = 3, 20, 200
ROUNDS = int(os.environ.get("CONVOLAB_ROUNDS", ROUNDS_OF_MAKE_TEST))
LONGEST_DELAY = 0.25  # seconds; a command takes about as long
COMMANDS = ("train", "resume", "test", "runs", "study", "compare")
PAIRS = tuple(itertools.combinations_with_replacement(COMMANDS, 2))
STATES_OF = {  # what a command finds in the folder where it has something to do
    "train": ("nothing",),
    "resume": ("stopped run", "half study"),
    "test": ("finished run", "half study"),
    "runs": ("nothing", "stopped run", "finished run", "half study"),
    "study": ("nothing", "half study"),
    "compare": ("finished run", "half study"),
}
KEYS = {
    "data": {"limit": 60, "validation": 0.2},
    "model": {"name": "shallow_net", "hidden": 2},
    "training": {"epochs": 2, "batch_size": 16},
}
STUDY = Study.from_dict(
    {
        "name": "tiny",
        "seeds": [0, 1],
        "recipe": KEYS,
        "sections": {
            "rates": {
                "arms": {"fast": {}, "slow": {"optimizer.lr": 0.001}},
                "contrasts": [{"arm": "fast", "baseline": "slow"}],
            }
        },
    }
)
SETTINGS = [f"--set={section}.{key}={value}" for section, keys in KEYS.items() for key, value in keys.items()]
CLOCK = ("report", "tested_at", "written_by")  # keys of a report that differ from run to run
FIRST, SECOND = [Recipe.from_dict(KEYS).with_overrides({"training.seed": seed}) for seed in (0, 1)]
OTHER = FIRST.with_overrides({"optimizer.lr": 0.5})


@dataclass(frozen=True)
class Lab:
    """What all rounds share."""

    server: CommandServer
    folder: Path  # of the folders that rounds begin with
    contents: dict[str, dict[str, Any]]  # of uninterrupted runs, by their recipes' keys
    report: dict[str, Any]  # of an uninterrupted study


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Uninterrupted runs, an uninterrupted study, and a folder in each state that rounds begin with."""
    folder = tmp_path_factory.mktemp("concurrency")
    STUDY.write(folder / "study.toml")
    (folder / "nothing").mkdir()
    with threads_lent(1):
        start(FIRST, folder / "finished run")
        start(OTHER, folder / "other run")
        start(FIRST, folder / "stopped run", stop_after=4)  # of 3 steps an epoch
        start(FIRST, folder / "half study" / "runs" / FIRST.key)
        start(SECOND, folder / "half study" / "runs" / SECOND.key, stop_after=4)
    STUDY.write(folder / "half study" / "study.toml")
    with command_server() as server:
        assert_ends_with(0, *server.run(["study", "study.toml", "--out", "whole"], folder=folder))
        runs = sorted((folder / "whole" / "runs").iterdir())
        assert_ends_with(0, *(server.run(["test", str(run)], folder=folder)[0] for run in runs))
        report = json.loads((folder / "whole" / "report.json").read_text())
        yield Lab(server, folder, {run.name: run_contents(run) for run in runs}, without_clock(report))


def start(recipe: Recipe, folder: Path, stop_after: int = 10**6) -> None:
    """Train a recipe, or its first steps."""
    steps = itertools.count()
    Run.start(recipe, load("digits"), folder, callbacks=FunctionCallbacks(stop=lambda: next(steps) >= stop_after))


def without_clock(report: Any) -> Any:
    """A study's report without what depends on the clock, or names where it is."""
    if isinstance(report, dict):
        return {k: without_clock(v) for k, v in report.items() if "second" not in k and k not in CLOCK}
    return [without_clock(value) for value in report] if isinstance(report, list) else report


def assert_ends_with(code: int, *commands: Ended) -> None:
    for command in commands:
        assert command.code == code, command


def arguments_of(command: str, state: str, number: int, other_run: Path) -> list[str]:
    """The command on the folder `shared`: on the study there, or on one of its runs."""
    is_study = state == "half study"
    shared_run = f"shared/runs/{SECOND.key}" if is_study else "shared"
    return {
        "train": ["train", *SETTINGS, f"--set=training.seed={number}", "--threads", "1", "--out", "shared"],
        "resume": ["resume", shared_run],
        "test": ["test", f"shared/runs/{FIRST.key}" if is_study else "shared"],
        "runs": ["runs", "."],
        "study": ["study", "study.toml", "--out", "shared"],
        "compare": ["compare", "shared:fast" if is_study else "shared", str(other_run), "--out", "comparison.html"],
    }[command]


@pytest.mark.timing
@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_commands_at_once_on_one_folder_leave_it_whole(pair: tuple[str, str], lab: Lab, tmp_path: Path) -> None:
    play(pair, range(ROUNDS), lab, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_commands_at_once_on_one_folder_leave_it_whole_in_many_rounds(
    pair: tuple[str, str], lab: Lab, tmp_path: Path
) -> None:
    play(pair, range(ROUNDS, ROUNDS_OF_MAKE_LONG), lab, tmp_path)


def play(pair: tuple[str, str], rounds: range, lab: Lab, folder: Path) -> None:
    """Rounds of a pair, each in the next state that one of the two has something to do in, in either order."""
    states = [state for state in STATES_OF["runs"] if state in {*STATES_OF[pair[0]], *STATES_OF[pair[1]]}]
    for number in rounds:
        seed = f"{pair} {number}"
        rng = random.Random(seed)
        state = states[number % len(states)]
        place = folder / str(number)
        place.mkdir()
        STUDY.write(place / "study.toml")
        if state != "nothing":
            shutil.copytree(lab.folder / state, place / "shared")
        delays = [rng.uniform(0, LONGEST_DELAY), rng.uniform(0, LONGEST_DELAY)]
        arguments = [
            arguments_of(command, state, index, lab.folder / "other run") for index, command in enumerate(pair)
        ]
        ended = lab.server.run(*arguments, folder=place, delays=delays, pauses=seed)
        for command in ended:
            assert_ended_well(command)
        assert_whole(place, lab, state)
        shutil.rmtree(place)


def assert_ended_well(command: Ended) -> None:
    """It worked, or one line refused it; a study may also report that somebody else trains one of its runs."""
    name, lines = command.arguments[0], command.errors.splitlines()
    assert "Traceback" not in command.errors, command.errors
    assert command.code in (0, 2) or (name == "study" and command.code == 1), command
    if command.code == 2:
        assert sum(line.startswith("convolab: ") for line in lines) == 1, command
        assert lines[-1].startswith("convolab: "), command
    if command.code == 1:
        assert "is being trained by another process" in command.errors, command
    if name == "runs":
        assert command.code == 0 or "holds no runs" in command.errors, command
        for word in ("damaged", "killed"):
            assert word not in command.output, command


def assert_whole(place: Path, lab: Lab, state: str) -> None:
    """What is in the shared folder is one run or one study, and one more command finishes it bit for bit."""
    shared = place / "shared"
    is_run, is_study = (shared / "summary.json").exists(), (shared / "study.toml").exists()
    assert not (is_run and is_study)
    if not is_run and not is_study:
        assert state == "nothing"
        assert not shared.exists() or [path.name for path in shared.iterdir()] in ([], [".lock"])
    if is_run:
        commands = (["resume", "shared"], ["test", "shared"])
        assert_ends_with(0, *(lab.server.run(command, folder=place)[0] for command in commands))
        assert_uninterrupted(shared, lab)
    if is_study:
        assert_ends_with(0, *lab.server.run(["study", "study.toml", "--out", "shared"], folder=place))
        assert without_clock(json.loads((shared / "report.json").read_text())) == lab.report
        assert {path.name for path in (shared / "runs").iterdir()} == set(lab.contents)
        for run in (shared / "runs").iterdir():
            assert_uninterrupted(run, lab)
    left = [path for path in place.rglob("*") if ".part" in path.name or path.name == ".images"]
    assert not left


def assert_uninterrupted(run: Path, lab: Lab) -> None:
    """A run is, bit for bit, what its recipe gives uninterrupted."""
    contents = run_contents(run)
    expected = lab.contents[Recipe.read(run / "recipe.toml").key]
    for part in contents:
        assert contents[part] == expected[part], (run, part)


def test_the_numbers_of_rounds_in_docs_are_those_of_the_code() -> None:
    root = Path(__file__).resolve().parents[1]
    page = " ".join((root / "docs" / "trust.md").read_text().split())
    rounds = f"{ROUNDS_OF_MAKE_TEST} rounds of each pair in `make test`, {ROUNDS_OF_MAKE_LONG} in `make long`"
    assert f"{rounds}, {ROUNDS_OF_MAKE_SOAK} in `make soak`" in page
    assert f"in {len(PAIRS)} pairs" in page
    assert f"CONVOLAB_ROUNDS={ROUNDS_OF_MAKE_SOAK} " in (root / "Makefile").read_text()
