"""Runs that are there already, as the arms of a study: those of one recipe with several seeds are one arm."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from convolab.core.errors import require, suggest
from convolab.studies.outcomes import TrialResult
from convolab.studies.results import StudyResult, analyze_study
from convolab.studies.runner import StudyFolder
from convolab.studies.study import Study, Trial, format_arm_value
from convolab.training.run import Run

COMPARISON_METRICS = ("best_validation_accuracy", "final_validation_loss", "final_train_loss")


def find_runs_of_arm(spec: str) -> list[Run]:
    """The runs that a person names: a run's folder, or STUDY:ARM or STUDY:SECTION/ARM of a study's folder.

    Raises LabError if there are none.
    """
    folder, colon, arm = spec.rpartition(":")
    if not colon or (Path(spec) / "summary.json").exists():
        return [Run(spec)]
    require(
        (Path(folder) / "study.toml").exists(),
        f"{folder} holds no study: give a run's folder, or STUDY:ARM of a study's",
    )
    study, study_folder = Study.read(Path(folder) / "study.toml"), StudyFolder(folder)
    names = {f"{trial.section}/{trial.arm}" for trial in study.trials}
    matching = {name for name in names if name == arm or name.partition("/")[2] == arm}
    require(
        matching,
        f"the study {folder} has no arm '{arm}': {suggest(arm, names | {name.partition('/')[2] for name in names})}",
    )
    recipes = {name: [t.recipe for t in study.trials if f"{t.section}/{t.arm}" == name] for name in matching}
    key_sets = {tuple(recipe.key for recipe in found) for found in recipes.values()}
    require(
        len(key_sets) == 1,
        f"several sections of {folder} have an arm '{arm}': name one of {', '.join(sorted(matching))}",
    )
    folders = [study_folder.run_folder(recipe) for recipe in next(iter(recipes.values()))]
    trained = [path for path in folders if (path / "summary.json").exists()]
    require(trained, f"the arm '{arm}' of {folder} has no runs yet: run the study first")
    return [Run(path) for path in trained]


def compare_runs(runs: Sequence[Run]) -> StudyResult:
    """What sets runs apart, and how sure that is. Every arm is held against the first.

    Raises LabError for runs of different pictures, the same run twice, or one without an epoch.
    """
    require(len(runs) > 1, "one run alone cannot be compared: name two or more")
    fingerprints = {(run.summary["data"]["train"], run.summary["data"]["test"]) for run in runs}
    require(len(fingerprints) == 1, "these runs were trained on different pictures: compare runs of one picture set")
    for run in runs:
        require(run.history, f"{run.folder} has no epoch yet: resume it first")
    keys = [run.recipe.key for run in runs]
    duplicates = [run for run in runs if keys.count(run.recipe.key) > 1]
    require(
        not duplicates,
        f"{' and '.join(str(run.folder) for run in duplicates)} are one recipe, seed and all: a run tells nothing about itself",
    )
    values = [run.recipe.to_dict() for run in runs]
    for one in values:
        one["training"].pop("seed")
    common = {section: common_entries([one[section] for one in values]) for section in values[0]}
    arm_overrides = [
        {
            f"{section}.{key}": value
            for section, entries in one.items()
            for key, value in entries.items()
            if key not in common[section]
        }
        for one in values
    ]
    arms: dict[str, dict[str, Any]] = {}
    names = []
    for overrides, run in zip(arm_overrides, runs, strict=True):
        names.append(
            next((name for name, known in arms.items() if known == overrides), None)
            or derive_arm_name(overrides, run, arms)
        )
        arms[names[-1]] = overrides
    baseline, *others = arms
    section = {
        "title": "Every arm against the first",
        "arms": arms,
        "curves": ["train_loss", "validation_loss", "train_accuracy", "validation_accuracy"],
        "contrasts": [
            {"arm": arm, "against": baseline, "metric": metric} for metric in COMPARISON_METRICS for arm in others
        ],
    }
    if any(run.history[0].validation_accuracy is None for run in runs):
        section |= {
            "curves": ["train_loss", "train_accuracy"],
            "contrasts": [c for c in section["contrasts"] if "validation" not in c["metric"]],
        }
    seeds = sorted({run.recipe.training.seed for run in runs})
    study = Study.parse(
        {
            "name": "comparison",
            "title": " against ".join(arms),
            "seeds": seeds,
            "recipe": common,
            "sections": {"runs": section},
        }
    )
    trial_results = [
        TrialResult(
            Trial("runs", name, run.recipe.training.seed, run.recipe),
            run.status if run.status in ("finished", "diverged") else "stopped",
            tuple(run.history), run.summary.get("reason"), run.folder, run.summary,
        )
        for name, run in zip(names, runs, strict=True)
    ]  # fmt: skip
    notes = [
        f"{o.folder} has done {len(o.history)} epochs and is {o.status}: it does not count"
        for o in trial_results
        if o.status == "stopped"
    ]
    return StudyResult(study, analyze_study(study, trial_results), None, tuple(notes))


def common_entries(sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The keys with the same value in all of them; none if their names differ, because the other keys belong to the name."""
    first = sections[0]
    if any(one.get("name") != first.get("name") for one in sections):
        return {}
    return {key: value for key, value in first.items() if all(key in one and one[key] == value for one in sections)}


def derive_arm_name(overrides: dict[str, Any], run: Run, existing_names: Collection[str]) -> str:
    """A new arm's name: what is its own, if that is short, else its run's folder."""
    keys = [key_path if key_path.endswith(".name") else key_path.rpartition(".")[2] for key_path in overrides]
    name = ", ".join(f"{key}={format_arm_value(value)}" for key, value in zip(keys, overrides.values(), strict=True))
    name = name if 0 < len(name) <= 60 else run.folder.resolve().name
    return name if name not in existing_names else f"{name} ({len(existing_names) + 1})"
