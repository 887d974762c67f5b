"""No command and no public function runs code that somebody else's folder names, nor writes there if it only reads.

An audit hook sees both.

The commands are those of the command table with every option that takes a path or a text, and the functions all public
ones, so that a new one is covered by itself.
"""

import inspect
import json
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from support import own_parts
from support.small_homework import TOML

from convolab.handin.homework import load_homework
from convolab.handin.pack import pack_homework
from convolab.handin.start import start_homework

pytestmark = pytest.mark.slow

MAKE_FOLDER = """
from convolab.data.catalog import load
from convolab.training.recipe import Recipe
from convolab.training.run import Run
recipe = Recipe.from_dict(SECTIONS | {"model": {"name": "theirs.py:Net"}, "training": {"epochs": 1}})
Run.start(recipe, load("digits"), "run")
"""

THEIRS = """
from pathlib import Path
from torch import nn

Path({mark!r}).touch()


class Net(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""
# One part of a stranger's own of each kind, which touches the mark when it is imported.
SECTIONS = own_parts.SECTIONS | {"data": {"limit": 300, "augment": [own_parts.TRANSFORM]}}

STUDY = """
name = "theirs"
seeds = [0]
[recipe.model]
name = "theirs.py:Net"
[recipe.training]
epochs = 1
[sections.one.arms.a]
"optimizer.lr" = 0.1
[sections.one.arms.b]
"optimizer.lr" = 0.2
"""

HOMEWORK = TOML.replace(
    "[recipes.own]",
    f"""[recipes.theirs]
"model.name" = "theirs:Net"
"loss.name" = "{own_parts.FILE}:hinge"
"data.augment" = ["flip", "{own_parts.TRANSFORM}"]

[recipes.own]""",
)

AUDIT = """
import contextlib, importlib, inspect, io, json, os, sys
from pathlib import Path

folder = os.path.realpath(".")
seen = []

def is_theirs(path):
    return not path.startswith("<") and os.path.realpath(path).startswith(folder)


def writes(mode, flags):
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) or bool(set(mode or "") & set("wax+"))


def is_in(path):
    # Whether it is in what the stranger gave: a command's own outputs go beside that, into the current folder.
    return os.path.relpath(os.path.realpath(path), folder).split(os.sep)[0] in job["given"]


def hook(event, args):
    if event == "exec" and is_theirs(getattr(args[0], "co_filename", "<")):
        seen.append(f"exec {args[0].co_filename}")
    elif event == "import" and args[1] and is_theirs(str(args[1])):
        seen.append(f"import {args[1]}")
    elif event == "open" and isinstance(args[0], str | bytes) and writes(*args[1:]) and is_in(os.fsdecode(args[0])):
        seen.append(f"write {os.fsdecode(args[0])}")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "pickle.find_class"):
        seen.append(f"{event} {str(args)[:200]}")

import convolab, numpy, scipy.stats, torch, timm, altair, skimage, sklearn.datasets, PIL.Image, nbformat, nbconvert
from convolab.cli.main import COMMANDS, load_command
from convolab.handin.verify import fence
fence.bubblewrap = lambda: "/nowhere/bwrap"  # as if there were one: nothing is refused for the lack of it
job = json.loads(sys.argv[1])
sys.addaudithook(hook)
results = {}
for name, call in job["calls"]:
    before = len(seen)
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            if job["kind"] == "command":
                load_command(call[0]).main(call[1:], prog_name="convolab", standalone_mode=False)
            else:
                function, arguments, keywords = call
                getattr(convolab, function)(*arguments, **keywords)
            end = "ok"
    except SystemExit as error:
        end = f"exit {error.code}"
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
    message = out.getvalue()[-3000:]
    results[name] = {"end": end, "message": message, "seen": seen[before:], "ran": os.path.exists(job["mark"])}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: a network's file, a run of it, its weights, a recipe, a study, a homework, a hand-in's ZIP."""
    folder = tmp_path_factory.mktemp("theirs")
    mark = folder.parent / f"{folder.name}-RAN"
    (folder / "theirs.py").write_text(THEIRS.format(mark=str(mark)))
    (folder / own_parts.FILE).write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n{own_parts.SOURCE}")
    environment = {**os.environ, "CONVOLAB_DATA": str(folder.parent / f"{folder.name}-of-them"), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", f"SECTIONS = {SECTIONS!r}\n{MAKE_FOLDER}"], cwd=folder, env=environment, check=True
    )
    assert mark.exists()
    mark.unlink()
    (folder / "study.toml").write_text(STUDY)
    (folder / "homework.toml").write_text(HOMEWORK)
    shutil.copy(folder / "run/recipe.toml", folder / "recipe.toml")
    shutil.copy(folder / "run/best.safetensors", folder / "weights.safetensors")
    runs = folder / "a-study/runs"
    runs.mkdir(parents=True)
    shutil.copytree(folder / "run", runs / json.loads((folder / "run/summary.json").read_text())["recipe_key"])
    shutil.copy(folder / "study.toml", folder / "a-study/study.toml")
    work = folder.parent / f"{folder.name}-work"
    start_homework(load_homework(), work)
    shutil.copytree(folder / "run", work / "runs" / "run")
    pack_homework(load_homework(), work, folder / "theirs.zip", "Ada")
    assert not mark.exists()
    return folder


HARMLESS = {"--out", "--export", "--csv", "--address", "--executor", "--workers", "--threads", "--seeds", "--device"}
INPUTS = ("run", "a-study", "weights.safetensors", "recipe.toml", "study.toml", "theirs.zip", "theirs.py", ".")
# What lets a command come as far as to open what it is given: its other options that must be there, and an argument of
# the right kind where it looks at that first.
FILL = {"--target": "random", "--to": "torch", "--out": "there.pt2", "--name": "Ada", "--x": "1,2", "--y": "1,2"}
FITTING = {"power": "coursework", "handin verify": "theirs.zip"}


# In Python: keywords that take a network or a folder, with those that each needs beside it; and what comes before them.
KEYWORDS = {"net": {}, "victims": {}, "surrogates": {"for_transfer": True}, "pilot": {}}
FIRST = {
    "explain": (["chelsea"], {}),
    "fool": (["chelsea", "goldfish"], {}),
    "locate": (["chelsea"], {}),
    "receptive_field": (["chelsea"], {"pixel": [0, 0]}),
    "power": (["coursework"], {}),
}


def run_calls(folder: Path, kind: str, calls: list) -> dict:
    mark = folder.parent / f"{folder.name}-RAN"
    environment = {
        **os.environ,
        "CONVOLAB_DATA": str(folder.parent / f"{folder.name}-of-me"),
        "OMP_NUM_THREADS": "1",
        "CONVOLAB_FAST": "1",
    }
    given = [name for name in os.listdir(folder) if name in (*INPUTS, own_parts.FILE)]
    job = json.dumps({"kind": kind, "calls": calls, "mark": str(mark), "given": given})
    result = subprocess.run(
        [sys.executable, "-c", AUDIT, job], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


# What these are for: a finished run's curves are drawn again in its folder, and notebooks are put where one says.
WRITING = ("resume ", "handin start ")


def what_happened(results: dict) -> dict:
    """By call, code that ran, and what was opened for writing in the stranger's files by a call that only reads."""
    events = {
        name: [event for event in r["seen"] if not (event.startswith("write ") and name.startswith(WRITING))]
        + ["ran"] * r["ran"]
        for name, r in results.items()
    }
    return {name: seen for name, seen in events.items() if seen}


def command_calls() -> list:
    """Every command with every input in every place that takes a path or a text."""
    from convolab.cli.main import COMMANDS, load_command

    calls = []
    for name in COMMANDS:
        command = load_command(name)
        nested = getattr(command, "commands", {})
        for words, leaf in [([name, other], nested[other]) for other in nested] or [([name], command)]:
            arguments = [p for p in leaf.params if p.param_type_name == "argument" and p.required]
            options = [
                p.opts[0]
                for p in leaf.params
                if p.param_type_name == "option" and not p.is_flag and p.opts[0] not in HARMLESS
            ]
            needed = [p.opts[0] for p in leaf.params if p.param_type_name == "option" and p.required]
            filled = {option: [option, FILL[option]] for option in needed}
            for given in INPUTS:
                values = [given] * max(1, len(arguments))
                calls.append([f"{' '.join(words)} {given}", [*words, *values, *chain(*filled.values())]])
            for option in options:
                for given in ("run", "recipe.toml"):
                    values = [FITTING.get(" ".join(words), "run")] * max(1, len(arguments))
                    others = chain(*(filled[other] for other in needed if other != option))
                    calls.append([f"{' '.join(words)} {option} {given}", [*words, *values, *others, option, given]])
    return calls


def test_no_command_runs_the_code_of_a_strangers_folder_and_none_that_reads_writes_there(theirs: Path) -> None:
    calls = command_calls()
    assert len(calls) > 150
    results = run_calls(theirs, "command", calls)
    assert len(results) == len({name for name, _ in calls})
    assert what_happened(results) == {}
    refused = [name for name, r in results.items() if "have not trusted" in r["end"]]
    assert any(name.startswith("test") for name in refused)
    assert any(name.startswith("study") for name in refused)
    assert any(name.startswith("train --recipe") for name in refused), refused
    assert "homework.toml" not in results["handin check ."]["end"]  # nothing was wrong with it, so all of it was read
    assert [name for name, r in results.items() if ": missing " in r["end"]] == []  # all came as far as to open things
    assert any(name.startswith("fool") for name in refused), refused
    assert any(name.startswith("export run") for name in refused), refused
    assert "study file" not in results["power --pilot run"]["end"]
    assert "0 refused" in results["handin verify theirs.zip"]["message"]  # so its evidence was read
    again = results["handin verify --rerun run"]
    assert "evidence/run/code/theirs.py is code that you have not trusted" in " ".join(again["message"].split()), again


def test_no_public_function_runs_the_code_of_a_strangers_folder_or_writes_there(theirs: Path) -> None:
    import convolab

    own = [name for name in dir(convolab) if callable(getattr(convolab, name)) and not name.startswith("_")]
    calls = [
        [f"{name}({given!r}, {second!r})", [name, [given, second] if second else [given], {}]]
        for name in own
        if name not in ("train", "build", "summary")  # in these calls the person names the code
        for given in (*INPUTS, "chelsea")
        for second in ("", "run")
        if second or given != "chelsea"  # nothing of theirs
    ]
    calls += [[f"{name}(run)", [name, ["run"], {}]] for name in ("train", "build", "summary")]
    by_keyword = [
        (name, keyword, given)
        for name in own
        if inspect.isfunction(getattr(convolab, name))
        for keyword in list(inspect.signature(getattr(convolab, name)).parameters)[1:]
        if keyword in KEYWORDS
        for given in ("run", "weights.safetensors", "a-study")
    ]
    assert {name for name, _, _ in by_keyword} == FIRST.keys()
    calls += [
        [f"{name}({keyword}={given})", [name, FIRST[name][0], {**FIRST[name][1], **KEYWORDS[keyword], keyword: given}]]
        for name, keyword, given in by_keyword
    ]
    results = run_calls(theirs, "function", calls)
    assert what_happened(results) == {}
    assert any("have not trusted" in r["end"] for r in results.values())
    named = {
        f"{name}({keyword}={given})" for name, keyword, given in by_keyword if given == "run" and keyword != "pilot"
    }
    assert {name for name in named if "have not trusted" not in results[name]["end"]} == set()


@pytest.mark.long
def test_with_trust_it_runs_and_is_remembered(theirs: Path) -> None:
    trusted = run_calls(theirs, "command", [["with", ["test", "run", "--trust"]]])["with"]
    assert trusted["ran"]
    assert trusted["end"] in ("ok", "exit 0")
    again = run_calls(theirs, "command", [["again", ["predict", "run", "nothing.png"]]])["again"]  # another process
    assert "have not trusted" not in again["end"]
    assert "nothing.png" in again["end"]
