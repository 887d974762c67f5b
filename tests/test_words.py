"""One word for one thing: no two functions or classes share a name, and no word that was retired comes back."""

import ast
import functools
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from convolab.cli import retired
from convolab.cli.main import app
from convolab.core.errors import LabError
from convolab.training.first_edition import RENAMED_KEYS
from convolab.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "convolab"
RETIRED = tomllib.loads((ROOT / "tests" / "retired_words.toml").read_text())
NOTEBOOKS = PACKAGE / "handin" / "source"  # what a person writes there may have a name of ours


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Each module of the package, parsed."""
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if path.parent != NOTEBOOKS}


def module_level_names(tree: ast.Module, constants: bool) -> set[str]:
    """The functions and classes of a module, and its constants if asked for."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    if constants:
        for node in tree.body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_alias(name: str) -> bool:
    """Whether a constant is called as a type is: CamelCase."""
    return name[0].isupper() and any(letter.islower() for letter in name)


@pytest.mark.slow
def test_no_two_functions_classes_or_type_aliases_of_the_package_share_a_name() -> None:
    homes = defaultdict(list)
    for path, tree in trees().items():
        names = module_level_names(tree, constants=False)
        for name in names | set(filter(is_alias, module_level_names(tree, constants=True))):
            homes[name].append(str(path.relative_to(PACKAGE)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.slow
def test_no_function_or_class_of_a_module_begins_with_an_underscore() -> None:
    names = {name for tree in trees().values() for name in module_level_names(tree, constants=False)}
    assert sorted(name for name in names if name.startswith("_") and not name.startswith("__")) == []


def test_no_retired_function_class_or_constant_is_defined() -> None:
    defined = {name for tree in trees().values() for name in module_level_names(tree, constants=True)}
    assert sorted(defined & set(RETIRED["definitions"])) == []


def test_no_retired_method_or_field_is_defined() -> None:
    members = set()
    for tree in trees().values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                members |= {f"{node.name}.{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
                members |= {
                    f"{node.name}.{m.target.id}"
                    for m in node.body
                    if isinstance(m, ast.AnnAssign) and isinstance(m.target, ast.Name)
                }
    assert sorted(members & set(RETIRED["members"])) == []


@functools.cache
def texts() -> dict[str, str]:
    """What people read: code with its comments and messages, templates, documents and recipes."""
    paths = [
        *PACKAGE.rglob("*.py"), *PACKAGE.rglob("templates/*"), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"),
        *ROOT.glob("benchmarks/*"), *ROOT.glob("recipes/*"),
    ]  # fmt: skip
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if path.is_file() and path.suffix != ".png"}


@pytest.mark.slow
@pytest.mark.parametrize("phrase", RETIRED["phrases"])
def test_no_retired_phrase_is_left(phrase: str) -> None:
    pattern = re.compile(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])".replace(r"\ ", r"\s+(?:#\s+)?"), re.IGNORECASE)
    exempt = {tuple(entry) for entry in RETIRED.get("exempt", {}).get(phrase, [])}
    found = [
        (name, line.strip())
        for name, text in texts().items()
        if pattern.search(text)
        for line in text.splitlines()
        if pattern.search(line) and not any(name == place and part in line for place, part in exempt)
    ]
    assert found == [], f"say '{RETIRED['phrases'][phrase]}'"


# Words of the first edition that the tests used too, each with the word to use.
RETIRED_IN_TESTS = {
    "album": "snapshots",
    "anew": "again",
    "beware": "warning",
    "centre": "center",
    "colour": "color",
    "colours": "colors",
    "complaint": "message",
    "conduct": "run",
    "engine": "executor",
    "heard": "events",
    "lens": "method",
    "localisation": "localization",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "news": "events",
    "optimiser": "optimizer",
    "picture": "image",
    "pictures": "images",
    "refusal": "error",
    "said": "message",
    "stepper": "optimizer",
    "timeless": "run_contents",
    "todo": "jobs",
    "told": "run_jobs",
    "undisturbed": "uninterrupted",
    "wanted": "expected",
    "wavering": "peaked",
    "workshop": "task server",
}
# Where a test needs the old word: misspelled input, retired keys and options, and names that are part of a seed.
ALLOWED_IN_TESTS = {
    "cli/test_locate_command.py": {"centre"},
    "cli/test_study_commands.py": {"engine"},
    "handin/test_notebooks.py": {"todo"},
    "handin/test_start.py": {"todo"},
    "inspection/localization/test_alignment.py": {"centre"},
    "studies/test_stored_study.py": {"colour"},
    "studies/test_study.py": {"optimiser"},
    "test_frozen_names.py": {"pictures"},
    "theory/test_own_answers.py": {"todo"},
    "training/test_formats.py": {"colour"},
    "training/test_recipe.py": {"optimiser"},
    "training/test_transforms.py": {"colour"},
}


@pytest.mark.slow
def test_no_word_that_was_retired_in_the_tests_is_left() -> None:
    tests = ROOT / "tests"
    left = {}
    for path in sorted(tests.rglob("*.py")):
        name = path.relative_to(tests).as_posix()
        if name != "test_words.py":
            found = words_of(path.read_text(encoding="utf-8")) & RETIRED_IN_TESTS.keys() - ALLOWED_IN_TESTS.get(
                name, set()
            )
            left |= {(name, word): RETIRED_IN_TESTS[word] for word in found}
    assert left == {}, "use the word on the right"


RETIRED_IN_SOURCE = {"said": "message, note, print, stored", "told": "run_jobs, asked, recognized"}


def words_of(text: str) -> set[str]:
    """The words of a text and of the names in it, in lower case."""
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


@pytest.mark.slow
def test_names_comments_and_messages_of_the_package_have_no_said_and_no_told() -> None:
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.toml"), *PACKAGE.rglob("templates/*")]
    found = {
        (path.relative_to(PACKAGE).as_posix(), word): RETIRED_IN_SOURCE[word]
        for path in paths
        for word in words_of(path.read_text(encoding="utf-8", errors="replace")) & RETIRED_IN_SOURCE.keys()
    }
    assert found == {}, "use the word on the right"


@pytest.mark.parametrize(("old", "new"), RETIRED["recipe_keys"].items())
def test_a_retired_recipe_key_is_refused_in_one_line_that_names_the_new_one(old: str, new: str) -> None:
    section, _, key = old.partition(".")
    assert RENAMED_KEYS[old] == new
    assert key not in type(getattr(Recipe(), section)).model_fields
    with pytest.raises(LabError, match=re.escape(new)):
        Recipe.from_dict({}).with_overrides({old: 1})


def test_the_command_line_knows_every_retired_command_and_option() -> None:
    assert RETIRED["commands_and_options"] == retired.RETIRED


@pytest.mark.parametrize(("old", "new"), RETIRED["commands_and_options"].items())
def test_a_retired_command_or_option_is_refused_in_one_line_that_names_the_new_one(old: str, new: str) -> None:
    with pytest.raises(LabError, match=re.escape(f"'convolab {old}' is now called 'convolab {new}'")):
        app(old.split(), standalone_mode=False)
