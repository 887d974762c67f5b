"""Lifting a limit by its name in docs/trust.md, for one command."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import convolab
from convolab.core.errors import LabError
from convolab.core.limits import FIXED, LIMIT, lift_limits

TRUST = Path(__file__).resolve().parents[2] / "docs" / "trust.md"
ROWS: list[tuple[str, str]] = re.findall(r"\| `([a-z_0-9.]+)\.([A-Z_0-9]+)` \|", TRUST.read_text(encoding="utf-8"))
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
    assert len(ROWS) > 100
    assert [name for _, name in ROWS if not LIMIT.fullmatch(name)] == []


def read_at_import(node: ast.AST) -> Iterator[str]:
    """The names that are read when a module is imported: all but those in the bodies of its functions."""
    body: list[ast.AST] = []
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        body = list(node.body) if isinstance(node.body, list) else [node.body]
    for child in ast.iter_child_nodes(node):
        if child in body:
            continue
        if isinstance(child, ast.Name | ast.Attribute) and isinstance(child.ctx, ast.Load):
            yield ast.unparse(child)
        yield from read_at_import(child)


@pytest.mark.slow
def test_no_default_value_class_or_constant_keeps_the_number_that_a_limit_had_but_of_the_fixed_ones() -> None:
    limits = {".".join(row) for row in ROWS}
    source = Path(convolab.__file__).parent
    kept = set()
    for path in source.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        homes = {(name.asname or name.name): str(node.module) for node in imports for name in node.names}
        own = ".".join(path.relative_to(source.parent).with_suffix("").parts)
        for name in read_at_import(tree):
            kept.add(f"{homes.get(name.partition('.')[0], own)}.{name}".removeprefix("convolab."))
    assert kept & limits == FIXED


@pytest.mark.slow
def test_a_limit_that_is_lifted_after_the_import_is_in_force_where_it_was_a_default(tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text("[1, 2]")
    Image.new("RGB", (3, 3)).save(tmp_path / "photo.png")
    code = """
from convolab.core.errors import LabError
from convolab.core.files import read_json
from convolab.core.limits import lift_limits
from convolab.data.image_io import read_image, read_image_file
from convolab.handin.verify.fence import Limits
from convolab.training.recipe import Recipe

def error_of(call, *arguments):
    try:
        return call(*arguments)
    except LabError as error:
        return str(error)

lift_limits("data.image_source.MAX_SIDE=600")
assert Recipe.from_dict({"data": {"image_size": 600}}).data.image_size == 600
assert error_of(Recipe.from_dict, {"data": {"image_size": 601}}) == "data.image_size = 601: give 8 to 600 pixels"
lift_limits("handin.verify.fence.MAX_SECONDS=60.5, handin.verify.fence.MAX_FILE_BYTES=7e3")
assert (Limits().seconds, Limits().file_bytes) == (60.5, 7000)
lift_limits("core.files.MAX_JSON_BYTES=3, data.image_io.MAX_IMAGE_PIXELS=4")
assert "has more than 3 bytes" in error_of(read_json, "values.json")
assert "more than the limit of 4 pixels" in error_of(read_image, "photo.png")
assert "more than the limit of 4 pixels" in error_of(read_image_file, "photo.png")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
        ("studies.study.MAX_RUNS=2.5", "studies.study.MAX_RUNS=2.5: give a whole number"),
        ("studies.study.MAX_RUNS=1e999", "studies.study.MAX_RUNS=1e999: give a number up to 1e+18"),
        ("data.url.READ_TIMEOUT=1e10", "data.url.READ_TIMEOUT=1e10: give a number up to 1e+09"),
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
