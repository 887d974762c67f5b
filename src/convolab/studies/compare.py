"""Finished runs as the arms of a study: runs of one recipe with several seeds are one arm."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from convolab.core.errors import LabError, require, suggest
from convolab.core.run_files import SUMMARY_FILE
from convolab.core.text import join_with_and, pluralize
from convolab.core.types import Json
from convolab.studies.analyze import analyze_study, note_other_images
from convolab.studies.results import StudyResult, TrialResult
from convolab.studies.runner import read_study_result
from convolab.studies.section import Overrides, format_arm_value, usable_name
from convolab.studies.single_runs import describe_single_runs
from convolab.studies.stored_study import read_stored_study
from convolab.studies.study import Study, Trial
from convolab.studies.study_folder import STUDY_FILE, StudyFolder
from convolab.studies.trials import require_saved_metrics
from convolab.training.find_runs import find_runs
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.run_folder import runs_directly_in

COMPARISON_METRICS = ("best_validation_accuracy", "final_validation_loss", "final_train_loss")
MAX_OVERRIDES_LENGTH = 60  # of an arm's name that is what is its own


def split_arm_spec(spec: str) -> tuple[str, str] | None:
    """The study's folder and the arm that STUDY:ARM names; None for a run's folder."""
    colons = [index for index, letter in enumerate(spec) if letter == ":"]  # an arm's name may have some too
    if not colons or (Path(spec) / SUMMARY_FILE).exists():
        return None
    split = next((index for index in colons if (Path(spec[:index]) / STUDY_FILE).exists()), colons[-1])
    return spec[:split], spec[split + 1 :]


def find_runs_of_arm(spec: str) -> list[Run]:
    """The runs that a person names.

    `spec` is a run's folder, a folder that holds runs, or STUDY:ARM or STUDY:SECTION/ARM with a study's folder, also one of
    the first edition.
    Raises LabError if there are none.
    """
    parts = split_arm_spec(spec)
    if parts is None:
        is_study = (Path(spec) / STUDY_FILE).is_file()
        require(not is_study, f"{spec} is a study: give it alone, or one of its arms as {spec}:ARM")
        is_run = (Path(spec) / SUMMARY_FILE).exists()
        inside = [] if is_run else runs_directly_in(Path(spec))
        return [Run(path) for path in inside] or [Run(spec)]
    folder, arm = parts
    study_file = Path(folder) / STUDY_FILE
    require(study_file.exists(), f"{folder} is not a study's folder: give a run's folder, or STUDY:ARM")
    recipes: dict[str, dict[str, Recipe]] = {}  # by SECTION/ARM, then by the recipe's key
    for trial in read_stored_study(study_file).possible_trials:
        recipes.setdefault(f"{trial.section}/{trial.arm}", {})[trial.recipe.key] = trial.recipe
    matching = [name for name in recipes if arm in (name, name.partition("/")[2])]
    known = {*recipes, *(name.partition("/")[2] for name in recipes)}
    require(matching, f"the study {folder} has no arm '{arm}': {suggest(arm, known)}")
    chosen = recipes[matching[0]]
    require(
        all(recipes[name].keys() == chosen.keys() for name in matching),
        f"several sections of {folder} have an arm '{arm}': name one of {', '.join(sorted(matching))}",
    )
    all_recipes = {key: recipe for of_arm in recipes.values() for key, recipe in of_arm.items()}
    runs = runs_of_recipes(StudyFolder(folder), chosen, all_recipes)
    require(runs, f"the arm '{arm}' of {folder} has no runs yet: run the study first")
    return runs


def runs_of_recipes(
    study_folder: StudyFolder, recipes: Mapping[str, Recipe], all_recipes: Mapping[str, Recipe]
) -> list[Run]:
    """The runs of a study that were trained with these recipes, some of `all_recipes` of the study; all by key."""
    paths = [study_folder.run_folder(recipe) for recipe in recipes.values()]
    runs = [Run(path) for path in paths if (path / SUMMARY_FILE).exists()]
    if runs:
        return runs
    # The first edition named the folders by another hash of the recipe.
    by_key = {run.recipe.key: run for run in find_runs(study_folder.folder / "runs")}
    if known := [by_key[key] for key in recipes if key in by_key]:
        return known
    # Of somebody's own network a study's file lacks the options that are left at their defaults, a run's has them.
    fitting = {}  # by a run's key, that of the recipe which says most of it
    for run_key, run in by_key.items():
        keys = [key for key, recipe in all_recipes.items() if holds_values(run.recipe, recipe)]
        fitting[run_key] = max(keys, key=lambda key: len(all_recipes[key].to_dict()["model"]), default="")
    return [run for run_key, run in by_key.items() if fitting[run_key] in recipes]


def holds_values(recipe: Recipe, other: Recipe) -> bool:
    """Whether a recipe has every value of another, and perhaps more options of its network."""
    values = recipe.to_dict()
    return all(
        key in values.get(section, {}) and values[section][key] == value
        for section, entries in other.to_dict().items()
        for key, value in entries.items()
    )


def compare_named(several: Sequence[Run | str | Path]) -> StudyResult:
    """Compare runs, given themselves, by their folders or as STUDY:ARM; a study's folder alone gives what it has found."""
    if len(several) == 1 and not isinstance(several[0], Run) and (Path(several[0]) / STUDY_FILE).is_file():
        return read_study_result(Path(several[0]))
    specs = [None if isinstance(one, Run) else split_arm_spec(str(one)) for one in several]
    names = [spec[1].rpartition("/")[2] if spec else "" for spec in specs]
    # Arms of two studies may have one name: then what differs in their recipes names them.
    names = [name if names.count(name) == 1 else "" for name in names]
    groups = [[one] if isinstance(one, Run) else find_runs_of_arm(str(one)) for one in several]
    runs = [run for group in groups for run in group]
    return compare_runs(runs, [name for name, group in zip(names, groups, strict=True) for _ in group])


def compare_runs(runs: Sequence[Run], typed_names: Sequence[str] = ()) -> StudyResult:
    """How runs differ in what they were trained with and in what they reached, and how sure that is.

    Every arm is compared with the first. `typed_names` are what a person calls the arm of each run; without a name, or
    with an empty one, it is named by what it alone was trained with. Raises LabError for runs of different datasets, the
    same run twice, or one without an epoch.
    """
    require(len(runs) > 1, "a comparison needs at least two runs: give another run's folder too, or a study's")
    datasets = {run.summary["data_key"] for run in runs}
    require(len(datasets) == 1, "these runs were trained on different datasets: compare runs of one dataset")
    for run in runs:
        require(run.history, f"{run.folder} has not completed an epoch: resume it first")
        require_saved_metrics(run)
    keys = [run.recipe.key for run in runs]
    if duplicates := [str(run.folder) for run in runs if keys.count(run.recipe.key) > 1]:
        raise LabError(
            f"{join_with_and(duplicates)} have the same recipe and the same seed, so there is nothing to compare: "
            "give different runs"
        )
    common, overrides_of_runs = split_recipes([run.recipe for run in runs])
    arms: dict[str, Overrides] = {}
    names = []  # the arm of each run
    for run, overrides, typed in zip(runs, overrides_of_runs, typed_names or [""] * len(runs), strict=True):
        same_arm = next((name for name, known in arms.items() if known == overrides), None)
        names.append(same_arm or derive_arm_name(typed, overrides, run, arms))
        arms[names[-1]] = overrides
    has_validation = all(run.history[0].validation_accuracy is not None for run in runs)
    study = comparison_study(common, arms, sorted({run.recipe.training.seed for run in runs}), has_validation)
    trial_results = []
    notes = [note for run in runs if (note := note_of_extension(run, runs))]
    for run, name in zip(runs, names, strict=True):
        trial = Trial("runs", name, run.recipe.training.seed, run.recipe)
        status = run.status if run.status in ("finished", "failed", "diverged") else "stopped"
        reason = run.summary["reason"]
        trial_results.append(TrialResult(trial, status, tuple(run.history), reason, run.folder, run.summary))
        if status in ("failed", "stopped"):
            epochs = f"{len(run.history)} of {run.recipe.training.epochs} epochs"
            verb = "has" if status == "failed" else "is"
            notes.append(f"{run.folder} {verb} {run.status} after {epochs} and is left out of the comparison")
    sections = analyze_study(study, trial_results, are_planned=False)
    notes += note_other_images(sections)
    if len(runs) == len(arms) == 2 and all(result.status == "finished" for result in trial_results):
        sections = (replace(sections[0], comment=describe_single_runs(runs, names, overrides_of_runs)),)
    return StudyResult(study, sections, None, tuple(notes))


def note_of_extension(run: Run, runs: Sequence[Run]) -> str | None:
    """What a comparison must say of a run that went on from another one; None for one that did not."""
    parent = run.summary.get("parent")
    if parent is None:
        return None
    folders = [str(other.folder) for other in runs if other.summary["recipe_key"] == parent["recipe_key"]]
    source = folders[0] if folders else f"a run of recipe {parent['recipe_key']}"
    shared = ", so both have these in common" if folders else ""
    scratch = (
        "that gives what its recipe gives from scratch"
        if parent["is_exact"]
        else "that is not what its recipe gives from scratch, nor with other seeds"
    )
    return f"{run.folder} went on from {source} after {pluralize(parent['epochs'], 'epoch')}{shared}; {scratch}"


def split_recipes(recipes: Sequence[Recipe]) -> tuple[dict[str, dict[str, Json]], list[Overrides]]:
    """What recipes have in common, as a recipe's file has it, and the overrides that make each of them; without seeds.

    Where the `name` of a section differs, all its keys are overrides, because they belong to the name.
    """
    values = [recipe.to_dict() for recipe in recipes]
    for one in values:
        del one["training"]["seed"]
    common: dict[str, dict[str, Json]] = {}
    for section in dict.fromkeys(section for one in values for section in one):
        first, *others = [one.get(section, {}) for one in values]  # some sections may be left out
        same_name = all(other.get("name") == first.get("name") for other in others)
        entries = first.items() if same_name else ()
        common[section] = {
            key: value for key, value in entries if all(key in other and other[key] == value for other in others)
        }
    common = {section: keys for section, keys in common.items() if keys}
    overrides: list[Overrides] = [
        {
            f"{section}.{key}": value
            for section, entries in one.items()
            for key, value in entries.items()
            if key not in common.get(section, {})
        }
        for one in values
    ]
    return common, overrides


def comparison_study(
    common: dict[str, dict[str, Json]], arms: dict[str, Overrides], seeds: Sequence[int], has_validation: bool
) -> Study:
    """The study whose arms the runs are, with every arm compared with the first."""
    baseline, *others = arms
    metrics = [metric for metric in COMPARISON_METRICS if has_validation or "validation" not in metric]
    if "validation_metric" in common:  # the same one in all
        metrics.append("final_validation_metric")
    curves = ["train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]
    section: dict[str, Json] = {
        "title": "Each arm compared with the first (baseline)",
        "arms": arms,
        "curves": [curve for curve in curves if has_validation or "validation" not in curve],
        "contrasts": [{"arm": arm, "baseline": baseline, "metric": metric} for metric in metrics for arm in others],
    }
    return Study.from_file_values(
        {
            "name": "comparison",
            "title": " and ".join(arms),
            "seeds": seeds,
            "recipe": common,
            "sections": {"runs": section},
        },
        is_stored=True,
    )


def derive_arm_name(typed: str, overrides: Overrides, run: Run, existing_names: Collection[str]) -> str:
    """A new arm's name: as typed, or its overrides if they are short, else the name of its run's folder."""
    keys = [key_path if key_path.endswith(".name") else key_path.rpartition(".")[2] for key_path in overrides]
    name = ", ".join(f"{key}={format_arm_value(value)}" for key, value in zip(keys, overrides.values(), strict=True))
    name = typed or (name if 0 < len(name) <= MAX_OVERRIDES_LENGTH else usable_name(run.folder.resolve().name))
    return name if name not in existing_names else f"{name} ({len(existing_names) + 1})"
