"""What hand-ins share: whole notebooks, trained runs, figures, comments. Who copied from whom, no reading shows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TypeAlias, TypeVar

from convolab.core.text import pluralize, truncate_list
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.signs import Sign, as_note, as_shared

MIN_RUNS_OF_WORDS = 20  # of comments that are compared
MAX_SHARED = 0.5  # of the runs of words of the shorter one
CellPlace = tuple[str, str]  # a notebook and a cell
Members: TypeAlias = tuple[int, ...]  # hand-ins, by their places among all of them
Shared: TypeAlias = tuple[Members, Sign]
GroupKey = TypeVar("GroupKey")


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
    labels = hand_in_labels([(traces.name, traces.file) for traces in all_traces])
    for members, shared in merge_shared(find_shared(all_traces)):
        group = tuple(labels[i] for i in members)
        for i in members:
            signs[i].append(replace(shared, shared_by=group))
    for whole_class in (figure_signs, other_bits_notes):
        for found, more in zip(signs, whole_class(all_traces), strict=True):
            found += more
    return signs


def hand_in_labels(names_and_files: Sequence[tuple[str, str]]) -> list[str]:
    """What each hand-in is called: by the name of its person, and by its file too where two have that name.

    >>> hand_in_labels([("Ada", "a.zip"), ("Bela", "b.zip"), ("Ada", "c.zip")])
    ['Ada (a.zip)', 'Bela', 'Ada (c.zip)']
    """
    counts = Counter(name for name, _ in names_and_files)
    return [name if counts[name] == 1 else f"{name} ({file})" for name, file in names_and_files]


def own_run_signs(traces: Traces) -> Iterator[Sign]:
    """Runs of one hand-in that cannot both be as they say."""
    facts = [(run, run.times if has_times(run) else (), group_of(run), bits(run)) for run in traces.runs]
    for (one, one_times, one_group, one_bits), (other, times, group, other_bits) in combinations(facts, 2):
        place = f"evidence/{other.name}"
        if times and times == one_times:  # no two trainings take the very same seconds
            yield Sign(place, f"it is a copy of {one.name}: it took the same seconds in each epoch")
        elif shared_weights(one, other) and one.key != other.key:
            yield Sign(place, f"its weights are those of {one.name}, which has another recipe")
        elif group == one_group and other_bits != one_bits:
            yield Sign(place, f"it has the recipe and the machine of {one.name}, and other bits")


def merge_shared(found: Iterable[Shared]) -> list[Shared]:
    """One sign for all that the same hand-ins share: a note if each of these things is one."""
    merged: dict[Members, list[Sign]] = defaultdict(list)
    for members, sign in found:
        merged[members].append(sign)
    return [
        (
            members,
            Sign(
                ", ".join(dict.fromkeys(sign.where for sign in signs)),
                "; ".join(sign.what for sign in signs),
                weight="note" if all(sign.weight == "note" for sign in signs) else "shared",
                parts=tuple(sign.what for sign in signs),
            ),
        )
        for members, signs in merged.items()
    ]


def find_shared(all_traces: Sequence[Traces]) -> Iterator[Shared]:
    """What hand-ins share: each thing once, with all that have it. Those of one person may share what they like."""
    for members in group_by(all_traces, lambda traces: [traces.zip_sha256]).values():
        times = "twice" if len(members) == 2 else f"{len(members)} times"
        is_of_one = len({all_traces[i].name for i in members}) == 1
        make, by_one = (as_note, f", handed in {times} under one name") if is_of_one else (as_shared, "")
        yield members, make("manifest.json", f"one zip, byte for byte{by_one}")
    for name, members in group_by(all_traces, lambda traces: [traces.name]).items():
        if len({all_traces[i].zip_sha256 for i in members}) > 1:
            yield members, as_note("manifest.json", f"the name {name}, so they are not compared with each other")

    def groups(keys_of: Callable[[Traces], Iterable[GroupKey]]) -> Iterator[tuple[GroupKey, Members]]:
        for key, members in group_by(all_traces, keys_of).items():
            if len({all_traces[i].name for i in members}) > 1:
                yield key, members

    for (notebook, _), members in groups(lambda traces: traces.notebooks.items()):
        yield members, as_shared(f"{notebook}.ipynb", f"the notebook {notebook}.ipynb, byte for byte")
    yield from shared_comments(all_traces)
    runs: dict[Members, list[str]] = defaultdict(list)
    for times, members in groups(lambda traces: [run.times for run in traces.runs if has_times(run)]):
        same = [run.name for i in members for run in all_traces[i].runs if run.times == times]
        runs[members].append(" alias ".join(dict.fromkeys(same)))
    for members, names in runs.items():
        noun = "the run" if len(names) == 1 else "the runs"
        yield members, as_shared("evidence", f"{noun} {truncate_list(names)}, with the same seconds in each epoch")
    for digest, members in groups(lambda traces: [value for run in traces.runs for value in run.weights.values()]):
        same_weights = [run for i in members for run in all_traces[i].runs if digest in run.weights.values()]
        if len({run.key for run in same_weights}) > 1 and len({run.times for run in same_weights}) > 1:
            names = truncate_list(sorted({run.name for run in same_weights}))
            yield members, as_shared("evidence", f"the weights of {names}, whose recipes differ")
    for _, members in groups(lambda traces: [traces.code] if traces.code else []):
        yield members, as_note("answers in code", "all answers in code, character by character")
    speeds = {members: speed for speed, members in groups(lambda traces: sorted(traces.speeds, reverse=True))}
    for members, speed in speeds.items():
        yield members, as_note("outputs", f"a training that took `{speed}`")


def group_by(all_traces: Sequence[Traces], keys_of: Callable[[Traces], Iterable[GroupKey]]) -> dict[GroupKey, Members]:
    """The hand-ins that have each key, if they are two or more."""
    groups: dict[GroupKey, list[int]] = defaultdict(list)
    for i, traces in enumerate(all_traces):
        for key in dict.fromkeys(keys_of(traces)):
            groups[key].append(i)
    return {key: tuple(members) for key, members in groups.items() if len(members) > 1}


def shared_comments(all_traces: Sequence[Traces]) -> Iterator[Shared]:
    """Hand-ins whose comments are to a large part those of another one of the group."""
    groups: list[tuple[set[int], float]] = []  # and the smallest part that two of them share
    for i, j in combinations(range(len(all_traces)), 2):
        one, other = all_traces[i], all_traces[j]
        shorter = min(len(one.comments), len(other.comments))
        if shorter < MIN_RUNS_OF_WORDS or one.name == other.name:
            continue
        part = len(one.comments & other.comments) / shorter
        if part > MAX_SHARED:
            joined = [group for group in groups if group[0] & {i, j}]
            groups = [group for group in groups if group not in joined]
            members = {i, j}.union(*(members for members, _ in joined))
            groups.append((members, min([part, *(least for _, least in joined)])))
    for members, least in groups:
        more = "" if len(members) == 2 or least == 1 else " or more"
        yield tuple(sorted(members)), as_shared("comments", f"{100 * least:.0f} %{more} of the words of their comments")


def has_times(run: RunEvidence) -> bool:
    """Whether a run says how long each epoch took; older runs have NaN there."""
    return bool(run.times) and all(value == value for value in run.times)


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


def other_bits_notes(all_traces: Sequence[Traces]) -> list[list[Sign]]:
    """Runs of a recipe that most others of the class have with other bits, on machines of the same name.

    Copies of one run, which took the same seconds, count once.
    """
    trained: dict[object, set[tuple[object, object]]] = defaultdict(set)
    for i, traces in enumerate(all_traces):
        for run in traces.runs:
            trained[group_of(run)].add((bits(run), run.times if has_times(run) else (i, run.name)))
    groups = {group: Counter(own for own, _ in runs) for group, runs in trained.items()}
    notes: list[list[Sign]] = []
    for traces in all_traces:
        found = []
        for run in traces.runs:
            counts = groups[group_of(run)]
            [(most, times), *_] = counts.most_common(1)
            if most != bits(run) and times > counts[bits(run)]:
                others = f"{pluralize(times, 'other')} of the same recipe and processor"
                text = f"this run's result differs from {others}: check it with --rerun {run.name}"
                found.append(as_note(f"evidence/{run.name}", text))
        notes.append(found)
    return notes


def group_of(run: RunEvidence) -> object:
    return run.key, run.platform, len(run.history)
