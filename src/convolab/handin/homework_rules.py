"""What a homework's file must keep to, beyond the kinds of its values: names that exist, recipes that can be trained."""

import re
from typing import TYPE_CHECKING

from convolab.core.errors import LabError, require, suggest

if TYPE_CHECKING:
    from convolab.handin.homework import Homework, RecipeOverrides

HOMEWORK_FILE = "homework.toml"  # of the package, and the copy in a folder that another one laid out
README = "README.md"  # of the folder
PLAIN_NAME = re.compile(r"\w[\w.-]*")  # of files that are written into a folder
AUGMENT = "data.augment"  # the one key of a recipe that has a list of names
WEIGHTS_KEYS = ("model.weights", "model.weights_sha256", "model.pretrained_lr_factor")  # the others need the first


def require_sound(homework: "Homework", name: str) -> None:
    """Raise LabError, naming the entry, for a homework that speaks of what it does not have, or that cannot be done."""
    notebooks, recipes = [notebook.name for notebook in homework.notebooks], list(homework.recipes)
    ids = [item.id for item in homework.items]
    require(notebooks and homework.datasets, f"{name}: give at least one notebook and one budget")
    if homework.file is not None:  # the package's own are tested
        require_datasets(homework, name)
        require_recipes(homework, name)
    for what, names in (("notebooks", notebooks), ("items", ids)):
        twice = sorted({entry for entry in names if names.count(entry) > 1})
        require(not twice, f"{name}: two {what} are called {', '.join(twice)}: give each a name of its own")
    sources = [notebook.source for notebook in homework.notebooks if notebook.source]
    files = [homework.question1.answers, homework.question1.pdf, *notebooks, *sources]
    written = [homework.question1.answers, homework.question1.pdf, *(f"{notebook}.ipynb" for notebook in notebooks)]
    for file in files:
        require(
            PLAIN_NAME.fullmatch(file), f"{name}: {file!r} is not a file's name: give letters, digits, dots and dashes"
        )
    taken = [file for file in (*written, README, HOMEWORK_FILE) if [*written, README, HOMEWORK_FILE].count(file) > 1]
    require(not taken, f"{name}: two files would be called {', '.join(taken[:1])}: give question1 other names")
    for dataset in homework.datasets:
        require(
            f"{dataset}-fast" in homework.budgets, f"{name}: budgets.{dataset}-fast is missing: it is the trial run's"
        )
    for notebook in homework.notebooks:
        known = notebook.recipe in ("", *recipes)
        require(
            known, f"{name}: {notebook.name} has the recipe '{notebook.recipe}': {suggest(notebook.recipe, recipes)}"
        )
        missing = sorted(homework.budgets.keys() - notebook.num_runs.keys()) if notebook.recipe else []
        require(not missing, f"{name}: num_runs of {notebook.name} lacks {', '.join(missing)}")
    for item in homework.items:
        known = item.notebook in notebooks
        require(
            known, f"{name}: item {item.id} has the notebook '{item.notebook}': {suggest(item.notebook, notebooks)}"
        )
        require(item.id != "1", f"{name}: an item is called 1, as question 1 is: give it a name of its own")
        for value in item.values:
            for low, high in value.ranges.values():
                require(low <= high, f"{name}: item {item.id}: the range {low:g} to {high:g} of {value.label} is empty")


def require_datasets(homework: "Homework", name: str) -> None:
    """Raise LabError for a budget, a number of runs or a range of a dataset that there is not."""
    from convolab.data.catalog import DATASETS, is_own_data

    places = [("budgets", homework.datasets)]
    places += [(f"num_runs of {notebook.name}", list(notebook.num_runs)) for notebook in homework.notebooks]
    for item in homework.items:
        places += [(f"item {item.id}: ranges of {value.label}", list(value.ranges)) for value in item.values]
    for place, keys in places:
        for dataset in (key.removesuffix("-fast") for key in keys):
            known = dataset in DATASETS or is_own_data(dataset)
            require(known, f"{name}: {place}: there is no dataset '{dataset}': {suggest(dataset, DATASETS)}")


def require_recipes(homework: "Homework", name: str) -> None:
    """Raise LabError for a recipe that could not be trained on one of the datasets; somebody's code is not looked into."""
    from convolab.training.recipe import Recipe

    for title, recipe in homework.recipes.items():
        known = without_own_code(recipe)
        for dataset in homework.datasets:
            try:
                # The file may be a stranger's: `with_overrides` would trust what it names, as if this person had named it.
                Recipe().parse_overrides({"data.name": dataset, **known})
            except LabError as error:
                raise LabError(f"{name}: recipes.{title}: {error}") from error


def without_own_code(recipe: "RecipeOverrides") -> "RecipeOverrides":
    """What of a recipe can be checked without a look at somebody's code, nor at weights, which may have to be downloaded."""
    own = {key.partition(".")[0] for key in recipe if key.endswith(".name") and own_code_names({key: recipe[key]})}
    not_read = WEIGHTS_KEYS if WEIGHTS_KEYS[0] in recipe else ()
    known = {key: recipe[key] for key in recipe if key.partition(".")[0] not in own and key not in not_read}
    entries = known.get(AUGMENT)
    if isinstance(entries, list):
        known[AUGMENT] = [entry for entry in entries if not own_code_names({AUGMENT: entry})]
    return known


def own_code_names(recipe: "RecipeOverrides") -> list[str]:
    """The names of somebody's own code in a recipe: of its network and other parts, and of transforms.

    >>> own_code_names({"model.name": "net.py:Net", "data.augment": ["crop:4", "blur.py:blur(2)"], "loss.name": "focal"})
    ['net.py:Net', 'blur.py:blur']
    """
    from convolab.models.own_code import is_own_code
    from convolab.training.parts import part_names

    return [name for name in part_names(recipe) if isinstance(name, str) and is_own_code(name)]
