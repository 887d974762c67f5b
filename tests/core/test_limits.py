"""Lifting a limit by its name in docs/trust.md, for one command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import convolab
from convolab.core.errors import LabError
from convolab.core.limits import FIXED, LIMIT, lift_limits

TRUST = Path(__file__).resolve().parents[2] / "docs" / "trust.md"
STUDY = """
name = "many"
seeds = [0, 1, 2]
recipe = { model = { name = "shallow_net" }, training = { epochs = 1 } }
[sections.lr.grid]
"optimizer.lr" = [0.1, 0.2]
"""


def run_with(limits: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "convolab", *arguments],
        cwd=cwd,
        env=os.environ | {"CONVOLAB_LIMITS": limits},
        capture_output=True,
        text=True,
    )


def test_every_limit_of_the_table_has_a_name_that_can_be_lifted() -> None:
    names = re.findall(r"\| `[a-z_0-9.]+\.([A-Z_0-9]+)` \|", TRUST.read_text(encoding="utf-8"))
    assert len(names) > 100
    assert [name for name in names if not LIMIT.fullmatch(name)] == []


@pytest.mark.slow
def test_the_fixed_limits_are_those_that_are_baked_into_values() -> None:
    source = Path(convolab.__file__).parent
    baked = set()
    for path in source.rglob("*.py"):
        for name in re.findall(r"\b(?:le|lt|max_length)=(MAX_[A-Z_]+)", path.read_text(encoding="utf-8")):
            baked.add(f"{path.relative_to(source).with_suffix('').as_posix().replace('/', '.')}.{name}")
    assert baked == FIXED


@pytest.mark.slow
def test_a_command_takes_the_limit_that_the_environment_gives_it(tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text(STUDY)
    refused = run_with("studies.study.MAX_RUNS=5", "study", "many.toml", "--out", "x", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "5" in refused.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_what_the_limit_refused_gets_further_when_it_is_lifted(tmp_path: Path) -> None:
    command = ("train", "shallow_net", "--set", f"data.augment=[{','.join(['8'] * 6000)}]")
    assert "is too long: give 10,000 at most" in run_with("", *command, cwd=tmp_path).stderr
    assert "is too long" not in run_with("training.recipe.MAX_VALUE_LENGTH=20000", *command, cwd=tmp_path).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("MAX_RUNS=5", "write module.NAME=number"),
        ("studies.study.MAX_RUNZ=5", "did you mean 'MAX_RUNS'"),
        ("studies.none.MAX_RUNS=5", "No module named"),
        ("studies.study.MAX_RUNS=-1", "write module.NAME=number"),
        ("training.sections.MAX_EPOCHS=200000", "is part of the format and fixed"),
        ("inspection.passes.PROOF_TOLERANCE=1", "has no limit 'PROOF_TOLERANCE'"),
    ],
)
def test_what_is_no_limit_is_named_in_one_line(tmp_path: Path, entry: str, words: str) -> None:
    with pytest.raises(LabError, match=re.escape(words)):
        lift_limits(entry)
    refused = run_with(entry, "runs", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.slow
def test_a_lifted_limit_leaves_others_of_its_name_alone() -> None:
    code = (
        "import convolab.handin.verify.archive as archive, convolab.app.folders as folders, convolab.models.zoo as zoo\n"
        "import convolab.inspection.explain.method_names as names, convolab.inspection.explain.methods as methods\n"
        "from convolab.core.limits import lift_limits\n"
        "before = archive.MAX_DEPTH, zoo.MAX_SIDE\n"
        "lift_limits('app.folders.MAX_DEPTH=21, data.image_source.MAX_SIDE=1024, inspection.explain.method_names.MAX_STEPS=7')\n"
        "assert folders.MAX_DEPTH == 21 and (archive.MAX_DEPTH, zoo.MAX_SIDE) == before, (archive.MAX_DEPTH, zoo.MAX_SIDE)\n"
        "assert names.MAX_STEPS == methods.MAX_STEPS == 7  # imported by name: it is the same limit\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
