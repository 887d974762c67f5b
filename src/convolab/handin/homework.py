"""What the homework asks for, read from homework.toml: its items, its notebooks, its budgets and recipes.

The package holds the course's. A teacher's own file takes its place: beside it lie the sources of notebooks of their own.
A folder that was laid out by such a file keeps a copy of it.
"""

import reprlib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationError

from convolab.core.errors import LabError, require, suggest
from convolab.core.files import read_text, require_shallow
from convolab.core.plain_words import first_problem, keys_at, place_of
from convolab.core.types import Frozen
from convolab.handin.homework_rules import HOMEWORK_FILE, require_sound

Form: TypeAlias = Literal["student", "solution"]
FORMS: tuple[Form, ...] = ("student", "solution")
RecipeOverrides: TypeAlias = dict[str, str | int | float | bool | list[str]]
Support: TypeAlias = Literal["", "interval", "chart"]
PACKAGE = "convolab.handin"
MAX_HOMEWORK_BYTES = 1_000_000
MAX_SOURCE_BYTES = 2_000_000  # of a notebook's source
NonEmpty: TypeAlias = Annotated[str, Field(min_length=1)]
Points: TypeAlias = Annotated[float, Field(ge=0, strict=True)]  # strict: true is not a number
AtLeastOne: TypeAlias = Annotated[int, Field(ge=1, strict=True)]


class Value(Frozen):
    """A number that a cell prints as `label = number`, and for each dataset the range in which it is plausible."""

    cell: str
    label: str
    ranges: dict[str, tuple[float, float]] = {}  # by dataset
    # Where it stands a second time: as the 95 % interval printed with it, or at the end of a curve of its cell's chart.
    support: Support = ""


class EvidenceValue(Frozen):
    """Accuracies that a cell prints as `label = number` or `label [number, ...]`: each must be one of a run in runs/."""

    cell: str
    label: str


class Question1Sizes(Frozen):
    """The sizes of question 1(c); None: the course's."""

    samples: int | None = None
    maps: int | None = None
    kernel_size: int | None = None
    outputs: int | None = None


class Question1(Frozen):
    """The question that is answered with pencil and paper."""

    title: NonEmpty
    answers: str  # the file to write into
    pdf: str  # the file that may take its place
    points: Points = 0.0
    sizes: Question1Sizes = Question1Sizes()


class HomeworkItem(Frozen):
    """One thing that the homework asks for: which cells of a notebook hold its code, checks, figures and comments."""

    id: NonEmpty  # such as 2.6
    question: int
    title: NonEmpty
    notebook: str
    code: tuple[str, ...] = ()  # cells whose gaps must be filled
    checks: tuple[str, ...] = ()  # cells whose assertions must hold
    figures: tuple[str, ...] = ()  # cells that must show one
    comments: tuple[str, ...] = ()  # cells that the person must write
    values: tuple[Value, ...] = ()
    evidence: tuple[EvidenceValue, ...] = ()
    points: Points = 0.0  # if nothing of it is open


class NotebookInfo(Frozen):
    """A notebook of the homework: its file's name without ending, its title, and the recipe of its runs."""

    name: str
    title: NonEmpty
    source: str = ""  # the file of its cells, beside the homework's; empty: the package's of its name
    recipe: str = ""  # of its runs; empty: it leaves none
    num_runs: dict[str, AtLeastOne] = {}  # by budget: how many runs it leaves in runs/, with the seeds 0, 1, ...
    charts_repeat: bool = False  # whether each accuracy at the end of a curve stands elsewhere in it too
    imports: tuple[str, ...] = ()  # packages that its answers may import besides those of the given cells


class TrainingBudget(Frozen):
    """How long the notebooks train on a dataset."""

    limit: AtLeastOne  # training images, those for validation included
    epochs: AtLeastOne
    batch_size: AtLeastOne
    seeds: AtLeastOne  # of the comparison with convolab
    small_epochs: AtLeastOne  # of the small network of question 4


class Homework(Frozen):
    """All that homework.toml holds."""

    format: Literal[1]
    title: NonEmpty
    min_comment_words: Annotated[int, Field(ge=0, strict=True)]
    question1: Question1
    budgets: dict[str, TrainingBudget]  # by dataset; NAME-fast is the one of a trial run
    recipes: dict[str, RecipeOverrides] = {}
    arms: dict[str, float | int | str | list[float | int | str]] = {}  # of a notebook's line NAME = VALUE, the value
    notebooks: tuple[NotebookInfo, ...]
    items: tuple[HomeworkItem, ...]
    file: Path | None = None  # where it was read from; None: the package's
    text: str = ""  # of the file

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

    @property
    def points(self) -> float:
        """The points of all items together."""
        return self.question1.points + sum(item.points for item in self.items)


def read_package_file(name: str) -> str:
    """The text of a file of this package."""
    return resources.files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


@cache
def load_homework() -> Homework:
    """The course's homework. Raises LabError if its file is damaged.

    >>> [item.id for item in load_homework().items][:3]
    ['2.1', '2.2', '2.3']
    """
    return parse_homework(read_package_file(HOMEWORK_FILE), None)


def read_homework(path: Path | None) -> Homework:
    """The homework of a teacher's file; without one the course's. Raises LabError if the file is missing or damaged."""
    return load_homework() if path is None else parse_homework(read_text(path, MAX_HOMEWORK_BYTES), path)


def find_homework(folder: Path, path: Path | None = None) -> Homework:
    """The homework that a folder is of: the file that is given, else the folder's copy, else the course's."""
    copy = folder / HOMEWORK_FILE
    return read_homework(path if path is not None else copy if copy.is_file() and not copy.is_symlink() else None)


def parse_homework(text: str, path: Path | None) -> Homework:
    """The homework in a text, which was read from a path. Raises LabError if it is damaged, or contradicts itself."""
    name = HOMEWORK_FILE if path is None else str(path)
    try:
        values = tomllib.loads(text)
        require_shallow(values, name)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{name} is not TOML: {error}") from error
    try:
        homework = Homework.model_validate({**values, "file": path, "text": text})
    except ValidationError as error:
        raise LabError(f"{name}: {format_homework_error(error, values)}") from error
    require_sound(homework, name)
    return homework


def format_homework_error(error: ValidationError, values: Mapping[str, object]) -> str:
    """The first problem of a homework's file in one line: the key, and what would be right; unknown keys come first."""
    place, details, what = first_problem(error)
    unknown = [found for found in error.errors() if found["type"] == "extra_forbidden"]
    if unknown:
        place, details = place_of(unknown[0]), unknown[0]
    where = ""
    match place:
        case ["items", int(number), *rest]:  # as a person finds it
            entry = entry_at(values, "items", number).get("id")
            where, place = (f"item {entry}: ", rest) if isinstance(entry, str) and entry else ("", place)
    key = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in place)
    if details["type"] == "missing":
        return f"{where}{key} is missing: set it"
    if details["type"] == "extra_forbidden":
        known = [name for name in keys_at(Homework, place_of(details)[:-1]) if name not in ("file", "text")]
        return f"{where}there is no key '{key}': {suggest(str(place[-1]), known)}"
    return f"{where}{key} = {reprlib.repr(details['input'])}: {what}"


def entry_at(values: Mapping[str, object], key: str, number: int) -> Mapping[str, object]:
    """A table in a list of tables, as the file has it; empty if there is none."""
    entries = values.get(key)
    entry = entries[number] if isinstance(entries, list) and number < len(entries) else {}
    return entry if isinstance(entry, Mapping) else {}


def read_notebook_source(homework: Homework, name: str) -> str:
    """The text of a notebook's source: the teacher's beside their file, or the package's. Raises LabError if it is missing."""
    info = homework.find_notebook(name)
    if info.source:
        require(
            homework.file is not None,
            f"the source {info.source} of {name} lies beside a homework's file: give --homework",
        )
        return read_text((homework.file or Path()).parent / info.source, MAX_SOURCE_BYTES)
    known = [notebook.name for notebook in load_homework().notebooks]
    require(name in known, f'the notebook {name} has no source: name its file, source = "{name}.py"')
    return read_package_file(f"source/{name}.py")
