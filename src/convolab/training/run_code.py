"""A run's copies of the code of somebody's own parts: its network, optimizer or schedule."""

from pathlib import Path

from convolab.core.errors import LabError
from convolab.core.types import Json
from convolab.models.own_code import OwnCode, code_of_record, find_own_code
from convolab.training.checkpoint import CODE_FOLDER
from convolab.training.recipe import Recipe
from convolab.training.run_folder import RunSummary


def code_folder(folder: Path, part: str) -> Path:
    """Where a run keeps its copy of the code of a part; of the model in code/ itself."""
    # No module is called @optimizer, so that no file of the model's code can have this name.
    return folder / CODE_FOLDER if part == "model" else folder / CODE_FOLDER / f"@{part}"


def code_records(summary: RunSummary) -> dict[str, dict[str, Json]]:
    """What a summary says of the code of somebody's own parts, by the part's name."""
    model = {"model": summary["code"]} if summary["code"] else {}
    return {**model, **(summary["parts"] or {})}


def read_codes(folder: Path, summary: RunSummary) -> dict[str, OwnCode]:
    """The copies in a run's folder, by the part's name. Raises LabError if one was changed."""
    records = code_records(summary)
    return {part: code_of_record(code_folder(folder, part), record) for part, record in records.items()}


def find_edited_file(summary: RunSummary, recipe: Recipe) -> str | None:
    """A file that a part was named by, and that was edited since the run began; None if there is none."""
    for part, name in recipe.own_parts.items():
        file, record = name.rpartition(":")[0], code_records(summary).get(part)
        if record and Path(file).is_file():
            try:
                is_same = find_own_code(name).sha256 == record["sha256"]
            except LabError:
                is_same = False
            if not is_same:
                return file
    return None
