"""What hand-ins share: whole notebooks, trained runs, figures, comments. Who copied from whom, no reading shows."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from convolab.core.text import truncate_list
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.signs import Sign, as_note

MIN_RUNS_OF_WORDS = 20  # of comments that are compared
MAX_SHARED = 0.5  # of the runs of words of the shorter one
CellPlace = tuple[str, str]  # a notebook and a cell


@dataclass
class Traces:
    """What of one hand-in is compared with the others."""

    name: str
    zip_sha256: str
    file: str = ""  # the zip's name
    notebooks: dict[str, str] = field(default_factory=dict)  # executed ones: SHA-256 by name
    code: str = ""  # SHA-256 of all answers in code; empty if a gap is open
    comments: frozenset[str] = frozenset()  # digests of runs of words
    figures: dict[str, set[CellPlace]] = field(default_factory=dict)  # SHA-256 -> where it is shown
    runs: list[RunEvidence] = field(default_factory=list)
    speeds: frozenset[str] = frozenset()  # what `convolab.train` showed of its seconds and images per second


def copy_signs(all_traces: Sequence[Traces]) -> list[list[Sign]]:
    """The signs of each hand-in that come from comparing it with itself and with the others."""
    signs = [list(own_run_signs(traces)) for traces in all_traces]
    for i, j in combinations(range(len(all_traces)), 2):
        one, other = all_traces[i], all_traces[j]
        if one.name == other.name:
            signs[i] += same_name_signs(one, other)
            signs[j] += same_name_signs(other, one)
            continue
        signs[i] += pair_signs(one, other)
        signs[j] += pair_signs(other, one)
    for whole_class in (figure_signs, same_code_notes, other_bits_notes):
        for found, more in zip(signs, whole_class(all_traces), strict=True):
            found += more
    return signs


def own_run_signs(traces: Traces) -> Iterator[Sign]:
    """Runs of one hand-in that cannot both be as they say."""
    for one, other in combinations(traces.runs, 2):
        place = f"evidence/{other.name}"
        if same_times(one, other):
            yield Sign(place, f"it is a copy of {one.name}: it took the same seconds in each epoch")
        elif shared_weights(one, other) and one.key != other.key:
            yield Sign(place, f"its weights are those of {one.name}, which has another recipe")
        elif one.key == other.key and one.platform == other.platform and differs(one, other):
            yield Sign(place, f"it has the recipe and the machine of {one.name}, and other bits")


def same_name_signs(own: Traces, other: Traces) -> Iterator[Sign]:
    """Two hand-ins under one name: the same file twice, or two of one person's, which may share what they like."""
    if own.zip_sha256 == other.zip_sha256:
        yield Sign("manifest.json", f"it is {other.file}, byte for byte, and says that it is by {own.name} too")
    else:
        yield as_note("manifest.json", f"{other.file} is by {own.name} too: the two are not compared")


def pair_signs(own: Traces, other: Traces) -> Iterator[Sign]:
    """What a hand-in shares with another one."""
    if own.zip_sha256 == other.zip_sha256:
        yield Sign("manifest.json", f"it is the same file as the hand-in of {other.name}")
    for notebook in sorted(own.notebooks.keys() & other.notebooks.keys()):
        if own.notebooks[notebook] == other.notebooks[notebook]:
            yield Sign(f"{notebook}.ipynb", f"it is the notebook of {other.name}, byte for byte")
    shorter = min(len(own.comments), len(other.comments))
    if shorter >= MIN_RUNS_OF_WORDS and len(own.comments & other.comments) > MAX_SHARED * shorter:
        shared = len(own.comments & other.comments) / shorter
        yield Sign("comments", f"{100 * shared:.0f} % of their words are those of {other.name}")
    if own.speeds & other.speeds:
        shared = sorted(own.speeds & other.speeds)[0]
        yield as_note("outputs", f"a training took `{shared}`, as one in the notebooks of {other.name}")
    for run in own.runs:
        for theirs in other.runs:
            if same_times(run, theirs):
                yield Sign(
                    f"evidence/{run.name}",
                    f"it is the run {theirs.name} of {other.name}: the same seconds in each epoch",
                )
            elif shared_weights(run, theirs) and run.key != theirs.key:
                yield Sign(
                    f"evidence/{run.name}",
                    f"its weights are those of {theirs.name} of {other.name}, which has another recipe",
                )


def same_times(one: RunEvidence, other: RunEvidence) -> bool:
    """Whether two runs took the very same seconds: no two trainings do. NaN, which older runs have, equals nothing."""
    return bool(one.times) and one.times == other.times and all(value == value for value in one.times)


def shared_weights(one: RunEvidence, other: RunEvidence) -> bool:
    """Whether a file of weights of one run has the SHA-256 of one of the other."""
    return bool(set(one.weights.values()) & set(other.weights.values()))


def bits(run: RunEvidence) -> tuple[object, ...]:
    """What equal recipes on equal machines have in common."""
    metrics = [
        (epoch.train_loss, epoch.train_accuracy, epoch.validation_loss, epoch.validation_accuracy)
        for epoch in run.history
    ]
    return tuple(metrics), tuple(sorted(run.weights.items()))


def differs(one: RunEvidence, other: RunEvidence) -> bool:
    """Whether two runs that are as far as each other have other metrics or weights."""
    return len(one.history) == len(other.history) and bits(one) != bits(other)


def figure_signs(all_traces: Sequence[Traces]) -> list[list[Sign]]:
    """A figure that others, or the same hand-in, show in another cell: it belongs to the cell that more of them have."""
    cells: dict[str, Counter[CellPlace]] = defaultdict(Counter)
    for traces in all_traces:
        for digest, places in traces.figures.items():
            cells[digest].update(places)
    signs: list[list[Sign]] = []
    for traces in all_traces:
        found = []
        for digest, places in traces.figures.items():
            most = max(cells[digest].values())
            homes = {place for place, count in cells[digest].items() if count == most}
            for notebook, cell in sorted(places):
                others = sorted(home for _, home in homes - {(notebook, cell)})
                if others and len(cells[digest]) > 1:
                    found.append(Sign(f"{notebook}, {cell}", f"its figure is that of {truncate_list(others)}"))
        signs.append(found)
    return signs


def same_code_notes(all_traces: Sequence[Traces]) -> list[list[Sign]]:
    """Who else has the same answers in code, character by character."""
    notes: list[list[Sign]] = []
    for traces in all_traces:
        others = [other.name for other in all_traces if other.code == traces.code and other.name != traces.name]
        what = f"character by character those of {truncate_list(others)}"
        notes.append([as_note("answers in code", what)] if traces.code and others else [])
    return notes


def other_bits_notes(all_traces: Sequence[Traces]) -> list[list[Sign]]:
    """Runs of a recipe that most others of the class have with other bits, on machines of the same name."""
    groups: dict[object, Counter[object]] = defaultdict(Counter)
    for traces in all_traces:
        for run in traces.runs:
            groups[group_of(run)][bits(run)] += 1
    notes: list[list[Sign]] = []
    for traces in all_traces:
        found = []
        for run in traces.runs:
            counts = groups[group_of(run)]
            [(most, times), *_] = counts.most_common(1)
            if most != bits(run) and times > counts[bits(run)]:
                text = f"{times} other runs of this recipe, on machines of this name, have other bits: train it again"
                found.append(as_note(f"evidence/{run.name}", text))
        notes.append(found)
    return notes


def group_of(run: RunEvidence) -> object:
    return run.key, run.platform, len(run.history)
