"""What the homework asks for, read from homework.toml: its items, its notebooks, its budgets and recipes."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal, TypeAlias

from pydantic import ValidationError

from convolab.core.errors import LabError
from convolab.core.types import Frozen

Form: TypeAlias = Literal["student", "solution"]
FORMS: tuple[Form, ...] = ("student", "solution")
RecipeOverrides: TypeAlias = dict[str, str | int | float | bool | list[str]]
PACKAGE = "convolab.handin"


class Value(Frozen):
    """A number that a cell prints as `label = number`, and for each dataset the range in which it is plausible."""

    cell: str
    label: str
    ranges: dict[str, tuple[float, float]]  # by dataset


class Question1(Frozen):
    """The question that is answered with pencil and paper."""

    title: str
    answers: str  # the file to write into
    pdf: str  # the file that may take its place


class HomeworkItem(Frozen):
    """One thing that the homework asks for: which cells of a notebook hold its code, checks, figures and comments."""

    id: str  # such as 2.6
    question: int
    title: str
    notebook: str
    code: tuple[str, ...] = ()  # cells whose gaps must be filled
    checks: tuple[str, ...] = ()  # cells whose assertions must hold
    figures: tuple[str, ...] = ()  # cells that must show one
    comments: tuple[str, ...] = ()  # cells that the person must write
    values: tuple[Value, ...] = ()


class NotebookInfo(Frozen):
    """A notebook of the homework: its file's name without ending, its title, and the recipe of its runs."""

    name: str
    title: str
    recipe: str
    num_runs: dict[str, int]  # by budget: how many runs it leaves in runs/


class TrainingBudget(Frozen):
    """How long the notebooks train on a dataset."""

    limit: int  # training images, those for validation included
    epochs: int
    batch_size: int
    seeds: int  # of the comparison with convolab
    small_epochs: int  # of the small network of question 4


class Homework(Frozen):
    """All that homework.toml holds."""

    format: Literal[1]
    title: str
    min_comment_words: int
    question1: Question1
    budgets: dict[str, TrainingBudget]  # by dataset; NAME-fast is the one of a trial run
    recipes: dict[str, RecipeOverrides]
    notebooks: tuple[NotebookInfo, ...]
    items: tuple[HomeworkItem, ...]

    @property
    def datasets(self) -> list[str]:
        """The datasets that the notebooks can train on."""
        return [name for name in self.budgets if not name.endswith("-fast")]

    def items_of(self, notebook: str) -> list[HomeworkItem]:
        """The items of a notebook, in order."""
        return [item for item in self.items if item.notebook == notebook]

    def find_notebook(self, name: str) -> NotebookInfo:
        """A notebook by its name. Raises StopIteration for an unknown one."""
        return next(notebook for notebook in self.notebooks if notebook.name == name)


def read_package_file(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


@cache
def load_homework() -> Homework:
    """The homework. Raises LabError if its file is damaged.

    >>> [item.id for item in load_homework().items][:3]
    ['2.1', '2.2', '2.3']
    """
    values = tomllib.loads(read_package_file("homework.toml"))
    try:
        return Homework.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise LabError(f"homework.toml is damaged: {path}: {first['msg']}") from error
