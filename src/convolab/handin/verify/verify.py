"""A teacher's look at a class: every hand-in is read, some of its runs are trained again, its notebooks executed."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import sha256_of
from convolab.handin.check import CheckResult, check_folder, has_gap
from convolab.handin.comments import own_text, run_digests
from convolab.handin.homework import Homework, HomeworkItem, NotebookInfo, load_homework
from convolab.handin.notebook_file import HandedInCell, one_line, printed_settings, read_notebook, shorten_cell
from convolab.handin.verify.archive import HandIn, find_hand_ins, read_hand_in, write_files, zip_labels
from convolab.handin.verify.cells import order_signs, output_signs
from convolab.handin.verify.copies import Traces, copy_signs
from convolab.handin.verify.digests import archive_signs, page_signs, require_course_homework
from convolab.handin.verify.evidence import RunEvidence, read_evidence
from convolab.handin.verify.execute import execute_signs
from convolab.handin.verify.fence import Limits, Permission, describe_fence, fence_kind, require_fence, work_folder
from convolab.handin.verify.given_cells import given_cell_signs, given_names, hidden_code_signs
from convolab.handin.verify.numbers import number_signs
from convolab.handin.verify.rerun import RunChoice, rerun_signs
from convolab.handin.verify.seeds import seed_signs
from convolab.handin.verify.signs import READING_CANNOT_SHOW, Means, Sign, Weight, as_note

ProgressLine = Callable[[str], object]
SPEED = re.compile(r"(?<![\d.])\d[\d.]{0,15} s, [\d,]{1,15} images/s")
MAX_LISTED = 500  # signs of each weight of one hand-in
NOUNS: dict[Weight, str] = {
    "sign": "contradictions",
    "shared": "groups that share work",
    "note": "notes",
    "confirmed": "confirmations",
    "skipped": "lines on what was not run again",
}


@dataclass(frozen=True)
class VerifyOptions:
    """What is done with a hand-in besides reading it."""

    rerun: RunChoice | None = None
    execute: bool = False
    permission: Permission = field(default_factory=Permission)
    is_course: bool = False  # whether no homework was given, and so the course's is meant


@dataclass
class HandInReport:
    """What is there in one hand-in, and what speaks against it."""

    file: str
    name: str = ""
    refused: str = ""  # why nothing of it was read, or empty
    check: CheckResult | None = None
    points: dict[str, float] = field(default_factory=dict)  # by item: those of what is done
    runs: list[RunEvidence] = field(default_factory=list)
    data: list[str] = field(default_factory=list)  # what each notebook says that it trained on
    signs: list[Sign] = field(default_factory=list)

    @property
    def contradictions(self) -> list[Sign]:
        """The signs that no honest hand-in has."""
        return self._signs_of("sign")

    @property
    def shared(self) -> list[Sign]:
        """What it shares with others, and at least one of them copied."""
        return self._signs_of("shared")

    @property
    def notes(self) -> list[Sign]:
        return self._signs_of("note")

    @property
    def confirmed(self) -> list[Sign]:
        """What came out the same when it was run again."""
        return self._signs_of("confirmed")

    @property
    def skipped(self) -> list[Sign]:
        """What was asked for and could not be done."""
        return self._signs_of("skipped")

    def _signs_of(self, weight: Weight) -> list[Sign]:
        return [sign for sign in self.signs if sign.weight == weight]

    @property
    def has_own_signs(self) -> bool:
        """Whether anything was found besides what a group shares."""
        return any(not sign.shared_by for sign in self.signs)

    @property
    def total_points(self) -> float:
        return sum(self.points.values(), 0.0)

    @property
    def num_done(self) -> int:
        return sum(item.is_done for item in self.check.items) if self.check else 0

    @property
    def num_items(self) -> int:
        return len(self.check.items) if self.check else 0

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs if run.seed is not None]

    @property
    def versions(self) -> list[str]:
        """The versions of torch and convolab, and the processors, of its runs."""
        platforms = [run.platform for run in self.runs if run.platform]
        return list(dict.fromkeys(f"torch {p[2]}, convolab {p[1]}, {p[0]}, threads {p[3]}" for p in platforms))

    @property
    def accuracies(self) -> list[float]:
        """The validation accuracy of each run's best epoch."""
        best = [max((e.validation_accuracy or 0 for e in run.history), default=None) for run in self.runs]
        return [accuracy for accuracy in best if accuracy is not None]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        items = [{"id": item.id, "done": item.is_done} for item in self.check.items] if self.check else []
        runs = [
            {"name": run.name, "recipe_key": run.key[0], "seed": run.seed, "weights": run.weights} for run in self.runs
        ]
        return {
            "file": self.file, "name": self.name, "refused": self.refused or None, "items": items,
            "points": self.points, "total_points": self.total_points, "accuracies": self.accuracies, "seeds": self.seeds,
            "versions": self.versions, "data": self.data, "runs": runs, "signs": [asdict(sign) for sign in self.signs],
        }  # fmt: skip


@dataclass(frozen=True)
class VerifyResult:
    """All hand-ins of a class, in the order that they were given."""

    homework: Homework
    reports: tuple[HandInReport, ...]
    fence: str = ""  # what code of the hand-ins ran behind; empty: none ran

    @property
    def suspicious(self) -> list[HandInReport]:
        """Those that were refused, contradict themselves or the evidence, or share work with others."""
        return [report for report in self.reports if report.refused or report.contradictions or report.shared]

    def count_done(self, means: Means) -> int:
        """How many runs were trained again, or how many notebooks were executed again."""
        return len(
            {
                (number, sign.where.partition(",")[0])  # the name of a zip may be that of many
                for number, report in enumerate(self.reports)
                for sign in report.signs
                if sign.means == means and sign.weight != "skipped"
            }
        )

    @cached_property
    def groups(self) -> list[Sign]:
        """What several hand-ins share, each once, in the order of their numbers: notes last, large ones first."""
        shared = dict.fromkeys(sign for report in self.reports for sign in report.signs if sign.shared_by)
        return sorted(shared, key=lambda sign: (sign.weight == "note", -len(sign.shared_by)))

    def group_numbers(self, report: HandInReport) -> list[int]:
        """The numbers, from 1, of the groups that a hand-in is in."""
        return [number for number, group in enumerate(self.groups, 1) if group in report.signs]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "homework": self.homework.title, "points": self.homework.points, "fence": self.fence or None,
            "hand_ins": [report.to_dict() for report in self.reports], "num_suspicious": len(self.suspicious),
            "reading_cannot_show": list(READING_CANNOT_SHOW),
        }  # fmt: skip


def verify_hand_ins(
    paths: Sequence[Path],
    homework: Homework | None = None,
    *,
    rerun: str | int | None = None,
    seed: int | None = None,
    execute: bool = False,
    trust: bool = False,
    unfenced: bool = False,
    data_dir: Path | None = None,
    limits: Limits | None = None,
    on_progress: ProgressLine = lambda line: None,
) -> VerifyResult:
    """Read the hand-ins of a class; nothing of them is run unless that is asked for.

    Args:
        paths: zips that `pack_homework` wrote, and folders that hold such zips, also in folders below.
        homework: what was asked for; default: the course's, and hand-ins that hold another one are refused.
        rerun: how many runs of each hand-in are trained again, a run's name, or "all".
        seed: by which runs are picked; needed with a number.
        execute: whether the notebooks are executed again.
        trust: run code of others that this needs, and remember it as trusted.
        unfenced: run it without bubblewrap's fence, under limits alone, where there is no fence.
        data_dir: the folder that holds downloaded datasets.
        limits: on time, memory and files of each job.
        on_progress: called with the name of each hand-in before it is looked at.

    Returns:
        A report for each zip; what cannot be read is one with a reason.

    Raises LabError, before any zip is opened, for a missing path, a number without a seed, and where notebooks cannot be
    executed behind a fence.

    >>> verify_hand_ins([Path("nowhere.zip")])
    Traceback (most recent call last):
    convolab.core.errors.LabError: there is no nowhere.zip
    """
    is_course = homework is None
    homework = homework or load_homework()
    choice = None if rerun is None else RunChoice(str(rerun), seed)
    files = find_hand_ins(paths)
    if execute:
        require_fence(unfenced)
    options = VerifyOptions(choice, execute, Permission(trust, unfenced, data_dir, limits), is_course)
    reports, all_traces = [], []
    for file, label in zip(files, zip_labels(files), strict=True):
        on_progress(label)
        try:
            report, traces = verify_one(file, label, homework, options)
        except Exception as error:  # of files that may be anything: whatever it is, the others go on
            reason = f"cannot be verified ({one_line(f'{type(error).__name__}: {error}')}): look at it by hand"
            report, traces = HandInReport(label, file.stem, refused=reason), None
        reports.append(report)
        all_traces.append((report, traces))
    compared = [(report, traces) for report, traces in all_traces if traces is not None]
    for (report, _), signs in zip(compared, copy_signs([traces for _, traces in compared]), strict=True):
        report.signs += signs
    for report in reports:
        report.signs = [name_item(homework, sign) for sign in listed_signs(report.file, report.signs)]
    names = [run.name for report in reports for run in report.runs]
    is_name = choice is not None and choice.words != "all" and not choice.words.isdecimal()
    require(
        choice is None or not is_name or not names or choice.words in names,
        f"no hand-in has a run '{rerun}': give its name in evidence/, a number or all",
    )
    return VerifyResult(homework, tuple(reports), describe_fence(fence_kind()) if options.permission.let_run else "")


def listed_signs(file: str, signs: Iterable[Sign]) -> list[Sign]:
    """The first signs of each weight, those of groups apart, so that none pushes out others; then how many are left out."""
    listed: list[Sign] = []
    counts: Counter[tuple[Weight, bool]] = Counter()
    for sign in dict.fromkeys(signs):
        kind = (sign.weight, bool(sign.shared_by))
        counts[kind] += 1
        if counts[kind] <= MAX_LISTED:
            listed.append(sign)
    for (weight, _), count in counts.items():
        if count > MAX_LISTED:
            listed.append(as_note(file, f"{count - MAX_LISTED:,} more {NOUNS[weight]} are not listed"))
    return listed


def item_cells(item: HomeworkItem) -> set[str]:
    """The cells of an item."""
    printing = {printed.cell for printed in (*item.values, *item.evidence)}
    return {*item.code, *item.checks, *item.figures, *item.comments, *printing}


def name_item(homework: Homework, sign: Sign) -> Sign:
    """A sign of a notebook's cell, with the items that the cell is of."""
    notebook, _, cell = sign.where.partition(", ")
    name = notebook.removesuffix(".ipynb").removesuffix(".html")
    ids = [item.id for item in homework.items_of(name) if cell in item_cells(item)] if cell else []
    noun = "item" if len(ids) == 1 else "items"
    return replace(sign, where=f"{sign.where} ({noun} {', '.join(ids)})") if ids else sign


def verify_one(
    file: Path, label: str, homework: Homework, options: VerifyOptions
) -> tuple[HandInReport, Traces | None]:
    """The report of one zip, and what of it is compared with the others; of one that cannot be read the reason alone."""
    try:
        hand_in = read_hand_in(file)
    except LabError as error:
        return HandInReport(label, file.stem, refused=reason_of(error, file)), None
    try:
        if options.is_course:
            require_course_homework(hand_in, homework)
    except LabError as error:
        return HandInReport(label, hand_in.name, refused=reason_of(error, file)), None
    report = HandInReport(label, hand_in.name, signs=list(archive_signs(hand_in, homework)))
    traces = Traces(hand_in.name, hand_in.sha256, label)
    with work_folder() as folder:
        try:
            write_files(hand_in.files, folder)
            report.check = check_folder(homework, folder)
            report.points = points_of(homework, report.check)
            report.runs = traces.runs = read_evidence(folder)
        except (LabError, OSError) as error:
            return HandInReport(label, hand_in.name, refused=one_line_of(error)), None
        report.signs += [sign for run in report.runs for sign in run.signs]
        notebooks = dict(read_notebooks(homework, folder, report))
        for name, cells in notebooks.items():
            report.signs += notebook_signs(homework, homework.find_notebook(name), hand_in, cells, report)
        trace_notebooks(homework, hand_in, notebooks, traces)
        report.signs += seed_signs(homework, notebooks, report.runs)
        report.signs += repeat_signs(file.name, hand_in, notebooks, report.runs, options)
    return report, traces


def reason_of(error: LabError, file: Path) -> str:
    """Why a zip is refused, without its path in front: the row has its name."""
    return str(error).removeprefix(f"{escape_line(str(file))} ")


def one_line_of(error: Exception) -> str:
    """An error in a line; LabError's is one already."""
    return str(error) if isinstance(error, LabError) else one_line(str(error))


def points_of(homework: Homework, check: CheckResult) -> dict[str, float]:
    """The points of each item that has some: all of them if nothing of it is open, else none."""
    wanted = {"1": homework.question1.points, **{item.id: item.points for item in homework.items}}
    return {item.id: wanted[item.id] if item.is_done else 0.0 for item in check.items if wanted.get(item.id)}


def read_notebooks(homework: Homework, folder: Path, report: HandInReport) -> Iterator[tuple[str, list[HandedInCell]]]:
    """The cells of the notebooks that can be read; that of the others is in the check."""
    for info in homework.notebooks:
        try:
            yield info.name, list(map(shorten_cell, read_notebook(folder / f"{info.name}.ipynb", folder)))
        except LabError as error:
            report.signs.append(
                Sign(f"{info.name}.ipynb", one_line(str(error)).replace(str(folder), "the hand-in"), "reading", "note")
            )


def notebook_signs(
    homework: Homework, info: NotebookInfo, hand_in: HandIn, cells: list[HandedInCell], report: HandInReport
) -> Iterator[Sign]:
    """All that reading one notebook shows."""
    settings = printed_settings(cells)
    data = settings.get("data", "")
    report.data.append(f"{data or 'not printed'}{' (fast)' if settings.get('fast') == 'True' else ''}")
    yield from order_signs(info.name, cells)
    yield from output_signs(info.name, cells)
    version = str(hand_in.manifest.get("convolab") or "")
    yield from given_cell_signs(homework, info, data if data in homework.datasets else "", cells, version)
    yield from hidden_code_signs(homework, info, cells, hand_in.files)
    yield from number_signs(homework, info, cells, report.runs)
    yield from page_signs(hand_in, info.name, cells)


def trace_notebooks(
    homework: Homework, hand_in: HandIn, notebooks: dict[str, list[HandedInCell]], traces: Traces
) -> None:
    """Note what of the notebooks is compared with those of others."""
    answers, words, speeds = [], set(), set()
    for name, cells in notebooks.items():
        named = {cell.name: cell for cell in reversed(cells)}
        items = homework.items_of(name)
        if any(cell.execution_count is not None for cell in cells):
            traces.notebooks[name] = sha256_of(hand_in.files[f"{name}.ipynb"])
        answers += [named[cell].source if cell in named else "..." for item in items for cell in item.code]
        for comment in (cell for item in items for cell in item.comments):
            if comment in named and named[comment].type == "markdown":
                words |= run_digests(own_text(named[comment].source))
        # A person may show a figure again in a cell of their own.
        asked = given_names(homework, homework.find_notebook(name)) | {cell for item in items for cell in item.figures}
        for cell in cells:
            speeds |= {found[0] for found in SPEED.finditer(cell.html)}
            for _, payload in cell.figures if cell.name in asked else ():
                traces.figures.setdefault(sha256_of(payload.encode()), set()).add((name, cell.name))
    traces.code = sha256_of(json.dumps(answers).encode()) if answers and not any(map(has_gap, answers)) else ""
    traces.comments, traces.speeds = frozenset(words), frozenset(speeds)


def repeat_signs(
    file: str,
    hand_in: HandIn,
    notebooks: dict[str, list[HandedInCell]],
    runs: Sequence[RunEvidence],
    options: VerifyOptions,
) -> Iterator[Sign]:
    """What training runs again, and executing notebooks again, shows."""
    for run in options.rerun.pick(hand_in.name, runs) if options.rerun else ():
        yield from rerun_signs(run, options.permission)
    if options.execute:
        processors = {run.platform[0] for run in runs if run.platform}
        for name, cells in notebooks.items():
            content = hand_in.files[f"{name}.ipynb"]
            yield from execute_signs(file, f"{name}.ipynb", content, cells, processors, options.permission)
