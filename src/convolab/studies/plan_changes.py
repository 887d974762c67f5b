"""What was changed in a study after outcomes had been seen: 5 % is the error of a plan that stays as it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from convolab.core.errors import LabError
from convolab.core.files import read_json, write_json
from convolab.core.records import validate_record
from convolab.core.text import join_with_and
from convolab.studies.contrast import Contrast
from convolab.studies.decide import Decision
from convolab.studies.results import TrialResult
from convolab.studies.section import Section
from convolab.studies.stored_study import parse_stored_study, stored_values
from convolab.studies.study import Study, Trial
from convolab.studies.study_folder import STUDY_FILE
from convolab.training.recipe import FORMAT, read_toml, require_known_format
from convolab.training.run_records import COMPLETED

PLAN_CHANGES_FILE = "plan_changes.json"
LEFT_OUT_FILE = "left_out.json"
FEWEST_SEEDS = 2  # fewer decide nothing, so nothing can be chosen by them


class LeftOut(TypedDict):
    """What left_out.json holds."""

    plans: dict[str, dict[str, Any]]  # by section, a study of it alone, as `stored_values` gives it


def read_plans(folder: Path) -> dict[str, Study]:
    """The plan of each section as it was run last, also of those that the latest call left out: a study of it alone.

    Raises LabError if one cannot be read.
    """
    path, plans = folder / LEFT_OUT_FILE, dict[str, dict[str, Any]]()
    if path.exists():
        values = read_json(path)
        plans = validate_record(LeftOut, values, path)["plans"]
        require_known_format(values.get("format"), path)
    stored = read_toml(folder / STUDY_FILE, "study")
    sections = stored.get("sections")
    if not isinstance(sections, Mapping):
        raise LabError(f"{folder / STUDY_FILE} has no sections")
    plans |= {name: {**stored, "sections": {name: section}} for name, section in sections.items()}
    return {name: parse_stored_study(values, folder / STUDY_FILE) for name, values in sorted(plans.items())}


def keep_left_out(folder: Path, plans: Mapping[str, Study], now: Study) -> None:
    """Keep the plans of the sections that `now`, which is about to replace the study's file, does not have."""
    left_out = {name: stored_values(plan) for name, plan in plans.items() if name not in now.sections}
    if left_out or (folder / LEFT_OUT_FILE).exists():
        write_json(folder / LEFT_OUT_FILE, {"format": FORMAT, "plans": left_out})


class PlanChanges(TypedDict):
    """What plan_changes.json holds."""

    changes: list[str]  # a line each, oldest first


def read_plan_changes(folder: Path) -> tuple[str, ...]:
    """The changes that a study's folder tells of. Raises LabError if the file is damaged or of a later format."""
    path = folder / PLAN_CHANGES_FILE
    if not path.exists():
        return ()
    values = read_json(path)
    record = validate_record(PlanChanges, values, path)
    require_known_format(values.get("format"), path)
    return tuple(record["changes"])


def note_plan_changes(folder: Path, changes: Sequence[str]) -> None:
    """Write down changes that the folder does not tell of yet."""
    known = read_plan_changes(folder)
    if new := [change for change in changes if change not in known]:
        write_json(folder / PLAN_CHANGES_FILE, {"format": FORMAT, "changes": [*known, *new]})


def find_plan_changes(
    before: Study, now: Study, results: Sequence[TrialResult], decisions: dict[str, list[Decision]]
) -> list[str]:
    """A line for each section whose plan is another one now, and that has outcomes already.

    Args:
        before: the study as it was, or a section of it.
        now: the same study as it is to be run.
        results: of the trials of `before`.
        decisions: of its contrasts, where seeds are "until decided".
    """
    changes = []
    for name in sorted(before.sections.keys() & now.sections.keys()):
        done = [r.trial for r in results if r.trial.section == name and r.status in COMPLETED]
        section = before.sections[name]
        seen = max((count_seen(contrast, section, done, now) for contrast in section.contrasts), default=0)
        if before.looks(name):
            seen = min(seen, max((decision.seeds for decision in decisions.get(name, [])), default=0))
        changed = changed_parts(before, now, name)
        if changed and seen >= FEWEST_SEEDS:
            changes.append(
                f"section '{name}': {join_with_and(changed)} {'were' if len(changed) > 1 else 'was'} changed after "
                f"{seen} seeds had been seen: 5 % is the error of a plan that stays as it is, and this one has more"
            )
    return changes


def compared_arms(contrast: Contrast, section: Section) -> tuple[str, ...]:
    """The arms that a contrast is about; of a trend those that are written: that its grid may widen is no change of it."""
    return contrast.named_arms or tuple(section.written_arms)


def count_seen(contrast: Contrast, section: Section, done: Sequence[Trial], now: Study) -> int:
    """At how many seeds a contrast's outcome was seen, as far as a run that it is made of is still one of the study."""
    keys = {(trial.arm, trial.seed): trial.recipe.key for trial in done}
    seeds = {trial.seed for trial in done}
    of_seeds = [[keys.get((arm, seed)) for arm in compared_arms(contrast, section)] for seed in seeds]
    return sum(None not in of_seed and any(key in now.recipes for key in of_seed) for of_seed in of_seeds)


def changed_parts(before: Study, now: Study, name: str) -> list[str]:
    """What of a section's plan, which is fixed before its first outcome, is another one now."""
    old, new = (
        {(contrast.label, contrast.metric): study.margins.of(contrast) for contrast in study.sections[name].contrasts}
        for study in (before, now)
    )
    old_recipes, new_recipes = (seedless_recipes(study, name) for study in (before, now))
    kept = old.keys() & new.keys()
    is_changed = {
        "the number of seeds": (before.seeds_of(name), before.looks(name)) != (now.seeds_of(name), now.looks(name)),
        "the list of contrasts": old.keys() != new.keys(),
        "an arm": any(old_recipes[key] != new_recipes[key] for key in kept),
        "a margin": any(old[key] != new[key] for key in kept),
    }
    return [part for part, changed in is_changed.items() if changed and old]


def seedless_recipes(study: Study, name: str) -> dict[tuple[str, str], list[str]]:
    """The keys of the recipes that each contrast of a section compares, whatever their seed; of a trend in any order."""
    section = study.sections[name]
    arms = {trial.arm: trial.recipe for trial in study.possible_trials if trial.section == name}
    recipes = {}
    for contrast in section.contrasts:
        keys = [arms[arm].with_seed(0).key for arm in compared_arms(contrast, section)]
        recipes[contrast.label, contrast.metric] = sorted(keys) if contrast.trend else keys
    return recipes
