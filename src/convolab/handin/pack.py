"""The file that is handed in: answers, executed notebooks and the evidence of the runs. Equal content, equal bytes."""

import importlib
import json
import re
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convolab.core.environment import package_version
from convolab.core.errors import LabError, require
from convolab.core.files import sha256_of, sha256_of_file
from convolab.core.outputs import output_file, require_outputs
from convolab.core.run_files import CODE_FOLDER, METRICS_FILE, RECIPE_FILE, SUMMARY_FILE, TEST_FILE, WEIGHTS_FILES
from convolab.data.image_npz import ZIP_ERRORS
from convolab.handin.check import CheckResult, check_folder, find_run_folders
from convolab.handin.homework import HOMEWORK_FILE, MAX_HOMEWORK_BYTES, Homework
from convolab.handin.notebook_file import MAX_NOTEBOOK_BYTES, one_line, read_bounded
from convolab.handin.question1 import MAX_PDF_BYTES
from convolab.theory.own_answers import MAX_BYTES_OF_ANSWERS
from convolab.training.run_folder import read_summary
from convolab.training.run_records import was_cut_short

HAND_IN = "hand-in"  # what the zip is as an output
FORMAT = 1  # of manifest.json
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: the earliest that the format knows
MAX_EVIDENCE_BYTES = 20_000_000
MAX_WEIGHTS_BYTES = 2_000_000_000
MAX_NAME_CHARS = 200
MAX_MANIFEST_BYTES = 10_000_000
EVIDENCE = (RECIPE_FILE, METRICS_FILE, SUMMARY_FILE, TEST_FILE)
MAX_CODE_FILES = 100  # of one run
MAX_CODE_BYTES = 1_000_000  # of one of them
RUN_NAME = re.compile(r"[\w][\w.+-]*")
CODE_PATH = re.compile(r"(?:@?\w[\w.-]*/)*\w[\w.-]*\.py")


@dataclass(frozen=True)
class PackResult:
    """What was packed, and what is still open."""

    path: Path
    files: tuple[str, ...]  # in the zip
    notes: tuple[str, ...]  # what was left out, and why
    check: CheckResult
    replaced: str = ""  # what the path held before, or empty


def pack_homework(homework: Homework, folder: Path, out: Path, name: str, *, strict: bool = False) -> PackResult:
    """Write a zip of the homework in a folder. What is missing is left out and listed in OPEN.md.

    Args:
        homework: what is asked for.
        folder: as `start_homework` made it, filled in.
        out: the zip to write; one that this function wrote for the same name is replaced.
        name: who hands it in.
        strict: refuse to write where anything is open.

    Returns:
        What was packed, and the result of the check.

    Raises LabError for an empty name, a path that is no zip or another's file, and with `strict` for open items.
    """
    require_name(name)
    replaced = require_zip_path(out, name)
    check = check_folder(homework, folder)
    require(
        not strict or not check.open_items,
        f"{len(check.open_items)} of {len(check.items)} items are open: see `convolab handin check`, "
        "or pack without --strict",
    )
    notes: list[str] = []
    files = {**collect_documents(homework, folder, notes), **collect_evidence(folder, notes)}
    if check.open_items:
        files["OPEN.md"] = open_items_text(check).encode()
    files["manifest.json"] = manifest_bytes(name, homework, check, files, notes)
    write_zip(out, files)
    return PackResult(out, tuple(sorted(files)), tuple(notes), check, replaced)


def require_name(name: str) -> None:
    """Raise LabError for a name that is empty, too long or cannot be printed."""
    require(name.strip() and name.isprintable(), "--name is empty or cannot be printed: give the name of who hands in")
    require(len(name) <= MAX_NAME_CHARS, f"--name has {len(name)} characters: give at most {MAX_NAME_CHARS}")


def require_zip_path(out: Path, name: str) -> str:
    """Raise LabError unless a zip can be written there without harm: nothing is there, or what we wrote for this name.

    Returns:
        What will be replaced, in a few words; an empty text if nothing is there.
    """
    require(out.suffix.lower() == ".zip", f"--out {out}: give a name that ends in .zip")
    require_outputs(HAND_IN, [out])
    if not out.exists():
        return ""
    manifest = read_manifest(out)
    packed_name = str(manifest.get("name", ""))
    require(
        packed_name == name,
        f"{out} is the hand-in of {one_line(packed_name) or 'somebody'}, not of {one_line(name)}: choose another name",
    )
    items = manifest.get("items")
    done = [isinstance(item, dict) and item.get("done") is True for item in items] if isinstance(items, list) else []
    return f"the hand-in of {one_line(packed_name)}, {sum(done)} of {len(done)} items done"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest in a zip of ours; empty for a zip without a readable one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("manifest.json")
            manifest = json.loads(archive.read(entry)) if entry.file_size <= MAX_MANIFEST_BYTES else None
    except (*ZIP_ERRORS, KeyError):  # damaged or another's
        return {}
    return manifest if isinstance(manifest, dict) else {}


def collect_documents(homework: Homework, folder: Path, notes: list[str]) -> dict[str, bytes]:
    """The answers and the notebooks, the latter as HTML too; a note for what is missing."""
    question1 = {homework.question1.pdf: MAX_PDF_BYTES, homework.question1.answers: MAX_BYTES_OF_ANSWERS}
    wanted = {name: limit for name, limit in question1.items() if (folder / name).exists()} or question1
    wanted |= {f"{notebook.name}.ipynb": MAX_NOTEBOOK_BYTES for notebook in homework.notebooks}
    wanted |= {} if homework.file is None else {HOMEWORK_FILE: MAX_HOMEWORK_BYTES}
    files = {name: content for name, limit in wanted.items() if (content := read_or_note(folder, name, limit, notes))}
    if not find_spec("nbconvert"):
        notes.append("no HTML of the notebooks: nbconvert is not installed: pip install nbconvert")
        return files
    for notebook in homework.notebooks:
        name = f"{notebook.name}.ipynb"
        if name in files:
            try:
                files[f"{notebook.name}.html"] = notebook_page(files[name])
            except LabError as error:
                notes.append(f"no HTML of {name}: {error}")
    return files


def read_or_note(folder: Path, name: str, limit: int, notes: list[str]) -> bytes | None:
    """The bytes of a file of a folder; None and a note where it is missing or refused."""
    try:
        return read_bounded(folder / name, folder, limit)
    except LabError as error:
        notes.append(one_line(str(error)))
        return None


def notebook_page(content: bytes) -> bytes:
    """A notebook as HTML by nbconvert, active content of its outputs removed.

    Files and addresses that it names are not embedded: what is read is the notebook alone.

    Raises LabError, with nbconvert's reason, if it cannot be converted.
    """
    nbformat, nbconvert = (importlib.import_module(name) for name in ("nbformat", "nbconvert"))
    try:
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        page, _ = nbconvert.HTMLExporter(sanitize_html=True).from_notebook_node(notebook)
    except (
        Exception
    ) as error:  # of a damaged notebook or a damaged installation: nbconvert and its parts raise many kinds
        reason = one_line(f"{type(error).__name__}: {error}".removesuffix(": "))
        raise LabError(
            f"nbconvert cannot convert it ({reason}); save it again in Jupyter, or install nbconvert again: "
            "pip install --force-reinstall nbconvert"
        ) from error
    return page.encode()


def collect_evidence(folder: Path, notes: list[str]) -> dict[str, bytes]:
    """Recipe, metrics, summary, test and own code of each run, and the digests of its weights.

    With these anybody can train a run again and compare: the recipe and the code are all that decides it, and the
    summary names the versions, the processor and the threads on which its bits depend.
    """
    files: dict[str, bytes] = {}
    for run in find_run_folders(folder / "runs"):
        if not RUN_NAME.fullmatch(run.name):
            notes.append(f"the run {one_line(run.name)!r} is left out: rename it to letters, digits and dashes")
            continue
        for name in EVIDENCE:
            if (run / name).exists():
                content = read_or_note(folder, f"runs/{run.name}/{name}", MAX_EVIDENCE_BYTES, notes)
                files |= {f"evidence/{run.name}/{name}": content} if content is not None else {}
        files |= collect_code(folder, run.name, notes)
        if has_not_ended(run):
            notes.append(
                f"the training of {run.name} was killed or still goes on: to hand in all of it, wait for it or "
                f"finish it (convolab resume runs/{run.name}), and pack again"
            )
        digests = {name: sha256_of_file(run / name) for name in WEIGHTS_FILES if is_plain_file(run / name)}
        files[f"evidence/{run.name}/weights.json"] = json_bytes({"sha256": digests})
    return files


def has_not_ended(run: Path) -> bool:
    """Whether a run's training was killed or still goes on; False where its summary cannot be read."""
    with suppress(LabError):
        return was_cut_short(read_summary(run))
    return False


def collect_code(folder: Path, run: str, notes: list[str]) -> dict[str, bytes]:
    """The copies of a person's own code that a run keeps."""
    root = folder / "runs" / run / CODE_FOLDER
    if root.is_symlink() or not root.is_dir():
        return {}
    files: dict[str, bytes] = {}
    for path in sorted(root.rglob("*.py"))[:MAX_CODE_FILES]:
        name = path.relative_to(root).as_posix()
        if CODE_PATH.fullmatch(name):
            content = read_or_note(folder, f"runs/{run}/{CODE_FOLDER}/{name}", MAX_CODE_BYTES, notes)
            files |= {f"evidence/{run}/{CODE_FOLDER}/{name}": content} if content is not None else {}
    return files


def is_plain_file(path: Path) -> bool:
    """Whether there is a file of a size that weights have, and no link."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_WEIGHTS_BYTES


def open_items_text(check: CheckResult) -> str:
    """OPEN.md: what is open, and where."""
    lines = [
        f"- {item.id} {item.title}, {problem.aspect}: {problem.what} ({problem.remedy})"
        for item in check.open_items
        for problem in item.problems
    ]
    return "\n".join(["# Open", "", *lines, ""])


def manifest_bytes(
    name: str, homework: Homework, check: CheckResult, files: dict[str, bytes], notes: list[str]
) -> bytes:
    """manifest.json: who, what is done and open, and the SHA-256 of every file."""
    items: list[dict[str, Any]] = [{"id": item.id, "title": item.title, "done": item.is_done} for item in check.items]
    digests = {path: sha256_of(files[path]) for path in sorted(files)}
    head = {
        "format": FORMAT, "homework": homework.title, "homework_sha256": homework_sha256(homework),
        "convolab": package_version("convolab"), "name": name,
    }  # fmt: skip
    return json_bytes({**head, "items": items, "fast_runs": list(check.fast), "sha256": digests, "notes": notes})


def homework_sha256(homework: Homework) -> str:
    """The SHA-256 of a homework's file."""
    return sha256_of(homework.text.encode())


def json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_zip(out: Path, files: dict[str, bytes]) -> None:
    """Write a zip atomically, its files by name, each with the same time and rights. Raises LabError if it cannot be."""
    with (
        output_file(out, HAND_IN) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
    ):
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
