"""A run's copies of the code of somebody's own parts: its network, optimizer or schedule."""

from pathlib import Path

from convolab.core.errors import LabError
from convolab.core.files import require_no_link
from convolab.core.run_files import CODE_FOLDER
from convolab.models.own_code import CodeRecord, OwnCode, code_of_record, find_own_code
from convolab.training.recipe import Recipe
from convolab.training.run_records import RunSummary


def code_folder(folder: Path, part: str) -> Path:
    """Where a run keeps its copy of the code of a part; of the model in code/ itself."""
    # No module is called @optimizer, so that no file of the model's code can have this name.
    return folder / CODE_FOLDER if part == "model" else folder / CODE_FOLDER / f"@{part}"


def code_records(summary: RunSummary) -> dict[str, CodeRecord]:
    """What a summary says of the code of somebody's own parts, by the part's name."""
    model = {"model": summary["code"]} if summary["code"] else {}
    return {**model, **(summary["parts"] or {})}


def code_files(folder: Path, summary: RunSummary) -> list[Path]:
    """The files in code/ that a run's summary lists."""
    return [
        code_folder(folder, part) / name for part, record in code_records(summary).items() for name in record["sha256"]
    ]


def read_codes(folder: Path, summary: RunSummary) -> dict[str, OwnCode]:
    """The copies in a run's folder, by the part's name. Raises LabError if one was changed, or lies elsewhere."""
    records = code_records(summary)
    if records:
        require_no_link(folder / CODE_FOLDER)
    return {part: code_of_record(code_folder(folder, part), record) for part, record in records.items()}


def find_edited_file(summary: RunSummary, recipe: Recipe) -> str | None:
    """A file that a part was named by, or one that it imports, if it was edited since the run began; else None."""
    for part, name in recipe.own_parts.items():
        file, record = name.rpartition(":")[0], code_records(summary).get(part)
        if record and Path(file).is_file():
            try:
                digests = find_own_code(name).sha256
            except LabError:
                return file
            recorded = record["sha256"]
            edited = [other for other in sorted(recorded) if digests.get(other) != recorded[other]]
            if edited:
                return file if Path(file).name in edited else str(Path(file).parent / edited[0])
    return None
