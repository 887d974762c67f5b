"""Run a study: check all of it, train the runs that are missing, collect the results."""

import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.run_files import SUMMARY_FILE, TEST_FILE
from convolab.core.text import pluralize, truncate_list
from convolab.core.types import MessageCallback
from convolab.data.catalog import load
from convolab.data.memmap import memmapped_dataset, read_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.analyze import analyze_study, note_other_images
from convolab.studies.best_on_test import make_best_on_test, select_best
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.studies.plan_changes import (
    find_plan_changes,
    keep_left_out,
    note_plan_changes,
    read_plan_changes,
    read_plans,
)
from convolab.studies.planning import StudyPlan, plan_study
from convolab.studies.results import BestOnTest, StudyResult, TrialResult
from convolab.studies.stored_study import read_stored_study, stored_text, write_stored_study
from convolab.studies.study import Study, Trial
from convolab.studies.study_folder import DATASET_FOLDER, STUDY_FILE, StudyFolder
from convolab.studies.trials import estimate_training_cost, find_corruption, require_saved_metrics
from convolab.training.epoch_log import require_logger
from convolab.training.recipe import Recipe
from convolab.training.run import COMPLETED, Run
from convolab.training.run_folder import read_summary
from convolab.training.setup import train_validation_split


def execute_study(
    study: Study,
    out: Path | str,
    *,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    retrain_damaged: bool = False,
    hours: float | None = None,
    log: str | None = None,
    on_event: EventCallback = lambda event: None,
    on_look: MessageCallback = lambda message: None,
    on_plan: Callable[[list[Job], int], None] = lambda jobs, num_done: None,
    on_message: MessageCallback = lambda message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StudyResult:
    """Train every run of a study that is missing, and decide its contrasts.

    Killed at any moment, the same call continues. In a script, call it below `if __name__ == "__main__":`, because
    trials are processes that import the script.

    Args:
        study: what to train and to decide.
        out: the study's folder.
        data_dir: where the dataset is, see `load`.
        executor: what trains; default: the cores of this machine.
        retrain_damaged: train damaged runs again instead of refusing them.
        hours: where seeds are "until decided", after how long no further look is begun: contrasts that are open then are
            undecided, and the same call goes on.
        log: "tensorboard", "mlflow", "wandb" or "playback": where each run's epochs go too, below its folder.
        on_event: called with each event of each job.
        on_look: where seeds are "until decided", called with a line about each section at each look.
        on_plan: called before the first job, with the jobs and the number of runs that were done before; where seeds are
            "until decided", before each look.
        on_message: called with what a user should know.
        should_stop: asked every half second; when it becomes true, running trials are saved and the rest is left.

    Returns:
        The results of all trials, also when it was stopped.

    Raises:
        LabError: before any work, if a recipe cannot be trained on these images, if the folder holds runs of other
            images, or if a run is damaged and `retrain_damaged` is off.

    >>> import tempfile
    >>> rates = {"grid": {"optimizer.lr": [0.1, 0.01]}}
    >>> recipe = {"model": {"name": "shallow_net"}, "training": {"epochs": 1}}
    >>> study = Study.from_dict({"name": "rates", "seeds": [0], "recipe": recipe, "sections": {"lr": rates}})
    >>> results = execute_study(study, tempfile.mkdtemp()).trial_results.values()
    >>> [(result.trial.arm, result.status) for result in results]
    [('lr=0.1', 'finished'), ('lr=0.01', 'finished')]
    """
    require_hours(study, hours)
    require_logger(log)
    study_folder = StudyFolder(out)
    datasets = {(trial.recipe.data.name, trial.recipe.data.image_size) for trial in study.trials}
    names = ", ".join(sorted(name for name, _ in datasets))
    require(len(datasets) == 1, f"a study uses one dataset and one image size, but its recipes name {names}")
    ((name, image_size),) = datasets
    splits = load(name, data_dir, image_size=image_size, on_message=on_message)
    for note in splits.notes:
        on_message(note)
    study_folder.require_usable(study)
    costs = estimate_costs(study.possible_trials, splits)
    with study_folder.lock():
        study_folder.require_usable(study)
        check_existing_runs(study_folder, study, splits, retrain_damaged, on_message)
        write_stored_study(study, study_folder.folder / STUDY_FILE)
        failure_reasons: dict[str, str] = {}

        def record_event(event: JobEvent) -> None:
            if event.kind == "failed":
                failure_reasons[event.key] = event.reason or "unknown reason"
            on_event(event)

        plan = plan_study(study, study_folder.trial_results(study, failure_reasons))
        jobs, num_done = plan_jobs(study_folder, plan, costs)
        if jobs and any(study.looks(name) or section.widen for name, section in study.sections.items()):
            on_message("more runs may follow: open contrasts get more seeds, and grids that widen more values")
        on_plan(jobs, num_done)
        if jobs:
            with memmapped_dataset(splits, study_folder.folder / DATASET_FOLDER) as dataset_folder:
                del splits  # what the workers map is enough
                started, executor = time.monotonic(), executor or LocalExecutor()
                is_late = False
                while jobs and not is_late:
                    executor.run([replace(job, log=log) for job in jobs], dataset_folder, record_event, should_stop)
                    if not all(is_run_complete(job.folder) or job.recipe.key in failure_reasons for job in jobs):
                        break  # it was stopped
                    previous, plan = plan, plan_study(study, study_folder.trial_results(study, failure_reasons))
                    for line in describe_progress(previous, plan):
                        on_look(line)
                    jobs, num_done = plan_jobs(study_folder, plan, costs, failure_reasons)
                    is_late = hours is not None and time.monotonic() - started >= hours * 3600 and bool(jobs)
                    if jobs and not is_late:
                        on_plan(jobs, num_done)
                splits = read_memmap(dataset_folder)
                return collect_results(study_folder, study, splits, failure_reasons, out_of_time=is_late)
        return collect_results(study_folder, study, splits, failure_reasons)


def require_hours(study: Study, hours: float | None) -> None:
    """Raise LabError for a time that is none, or that a study with fixed seeds cannot keep."""
    if hours is None:
        return
    require(hours > 0 and math.isfinite(hours), f"{hours:g} hours: give a number above 0")
    require(
        any(study.looks(name) for name in study.sections),
        'hours are for a study whose seeds are "until decided", which may stop after a look: leave them out',
    )


def plan_jobs(
    study_folder: StudyFolder,
    plan: StudyPlan,
    costs: Mapping[str, float],
    failure_reasons: Collection[str] = (),
) -> tuple[list[Job], int]:
    """The planned runs that are missing, but for those that failed just now, and the number of the others."""
    recipes = {trial.recipe.key: trial.recipe for trial in plan.trials}
    folders = {key: study_folder.run_folder(recipe) for key, recipe in recipes.items() if key not in failure_reasons}
    jobs = [Job(recipes[key], path, costs[key]) for key, path in folders.items() if not is_run_complete(path)]
    return jobs, len(folders) - len(jobs)


def describe_progress(previous: StudyPlan, plan: StudyPlan) -> Iterator[str]:
    """A line about each section that widened or was looked at since: what is decided, and what comes next."""
    for name, arms in plan.in_play.items():
        if added := sorted(arms - previous.in_play[name]):
            yield f"{name}: the best arm stands at an end of the grid, which goes on with {', '.join(added)}"
    for name, now in plan.decisions.items():
        if [decision.seeds for decision in now] == [decision.seeds for decision in previous.decisions[name]]:
            continue
        decided = sum(decision.outcome in ("different", "equivalent") for decision in now)
        open_ = [decision.next_look for decision in now if decision.next_look is not None]
        goes_on = f"{len(open_)} to go on with {open_[0]}" if open_ else "none goes on"
        seeds = max(decision.seeds for decision in now)
        yield f"{name}: after {seeds} seeds {decided} of {pluralize(len(now), 'contrast')} decided, {goes_on}"


def estimate_costs(trials: Iterable[Trial], splits: DatasetSplits) -> dict[str, float]:
    """What the recipe of each trial costs, by its key.

    Raises LabError, naming the arm, for a recipe that cannot be trained. All seeds of an arm cost the same.
    """
    costs: dict[str, float] = {}
    cost_by_arm: dict[tuple[str, str], float] = {}
    for trial in trials:
        arm = (trial.section, trial.arm)
        try:
            if arm not in cost_by_arm:
                cost_by_arm[arm] = costs.get(trial.recipe.key) or estimate_training_cost(trial.recipe, splits)
        except LabError as error:
            raise LabError(f"section '{trial.section}', arm '{trial.arm}': {error}") from error
        costs[trial.recipe.key] = cost_by_arm[arm]
    return costs


def is_run_complete(folder: Path) -> bool:
    """Whether a folder holds a run that more training would not change."""
    return (folder / SUMMARY_FILE).exists() and Run(folder).status in COMPLETED


def is_of_first_edition(run_folder: Path) -> bool:
    """Whether a run was written before files had a format number. A damaged summary is reported elsewhere."""
    with suppress(LabError):
        return read_summary(run_folder)["format"] is None
    return False


def check_existing_runs(
    study_folder: StudyFolder, study: Study, splits: DatasetSplits, retrain_damaged: bool, on_message: MessageCallback
) -> None:
    """Refuse the first edition's runs, those of other images and corrupt ones; report what changed in the study."""
    previous_study = study_folder.folder / STUDY_FILE
    run_folders = [path.parent for path in (study_folder.folder / "runs").glob(f"*/{SUMMARY_FILE}")]
    require(
        not any(is_of_first_edition(path) for path in run_folders),
        f"{study_folder.folder} is a study of convolab's first edition: "
        "it can be read and compared, but not continued; choose another folder",
    )
    existing_keys = {path.name for path in run_folders}
    previous = previous_study.read_text(encoding="utf-8") if previous_study.exists() else None
    if previous is not None and previous != study.to_toml() and previous != stored_text(study):
        reusable = existing_keys & set(study.recipes)
        unused = sorted(existing_keys - set(study.recipes))
        at_most = "at most " * any(study.looks(name) for name in study.sections)
        on_message(
            f"the study has changed since: {len(reusable)} of its runs can be reused, "
            f"{at_most}{len(study.recipes) - len(reusable)} are to be trained"
            + (f", {len(unused)} are in no section now ({truncate_list(unused, 5)})" if unused else "")
        )
        record_plan_changes(study_folder, study, on_message)
    require_usable_runs(study_folder, study.recipes.values(), splits, retrain_damaged, on_message)


def record_plan_changes(study_folder: StudyFolder, study: Study, on_message: MessageCallback) -> None:
    """Say, and write down for every later report, what of the plan was changed after outcomes had been seen."""
    try:
        plans = read_plans(study_folder.folder)
    except LabError as error:
        on_message(f"whether the plan was changed is not known: {error}")
        return
    changes = []
    for before in (plan for name, plan in plans.items() if name in study.sections):
        results = []
        for trial in before.possible_trials:
            with suppress(LabError):  # a damaged run is reported, or trained again, after this
                results.append(study_folder.trial_result(trial, {}))
        changes += find_plan_changes(before, study, results, plan_study(before, results).decisions)
    keep_left_out(study_folder.folder, plans, study)
    note_plan_changes(study_folder.folder, changes)
    for change in changes:
        on_message(change)


def require_usable_runs(
    study_folder: StudyFolder,
    recipes: Iterable[Recipe],
    splits: DatasetSplits,
    retrain_damaged: bool,
    on_message: MessageCallback,
) -> None:
    """Refuse runs of other images; refuse damaged ones, or delete them if they are to be retrained."""
    damaged: dict[Path, str] = {}
    for recipe in recipes:
        path = study_folder.run_folder(recipe)
        if problem := find_corruption(path, recipe):
            damaged[path] = problem
        elif (path / SUMMARY_FILE).exists():
            Run(path).require_same_data(splits)
    require(
        retrain_damaged or not damaged,
        f"{len(damaged)} of the runs {'is' if len(damaged) == 1 else 'are'} damaged: {'; '.join(damaged.values())}: "
        "restore the files, or train these runs again (--retrain-damaged, retrain_damaged=True)",
    )
    for path, problem in damaged.items():
        on_message(f"retraining: {problem}")
        shutil.rmtree(path)


def collect_results(
    study_folder: StudyFolder,
    study: Study,
    splits: DatasetSplits,
    failure_reasons: dict[str, str],
    out_of_time: bool = False,
) -> StudyResult:
    """The study's results from the runs in its folder."""
    sections = analyze_study(study, study_folder.trial_results(study, failure_reasons), out_of_time=out_of_time)
    trial_results = tuple(result for section in sections for arm in section.arms for result in arm.results)
    unfinished = {result.trial.recipe.key: result for result in trial_results if result.status not in COMPLETED}
    notes = [*read_plan_changes(study_folder.folder), *note_other_images(sections)]
    notes += [
        f"'{result.trial.arm}' of {result.trial.section}, seed {result.trial.seed}, failed"
        + (f": {result.reason}" if result.reason else "")
        for result in unfinished.values()
        if result.status == "failed"
    ]
    notes += note_untrained(unfinished.values())
    best = None
    if study.test_best and unfinished:
        notes.append(f"no run was tested: {len(unfinished)} are not done, and the test set is used once, when all are")
    elif study.test_best and not splits.has_test:
        notes.append(f"no run was tested: {splits.train.name} has no test images")
    elif study.test_best:
        best = evaluate_best_run(trial_results, splits)
        notes += previous_test_evaluations(study_folder, best)
    return StudyResult(study, sections, best, tuple(notes))


def note_untrained(unfinished: Iterable[TrialResult]) -> list[str]:
    """A note with how many runs are still to be trained; none if all are done or failed."""
    statuses = [result.status for result in unfinished]
    missing, stopped = statuses.count("missing"), statuses.count("stopped")
    counts = [f"{pluralize(missing, 'run')} {'is' if missing == 1 else 'are'} not trained yet"] if missing else []
    if stopped:
        count = f"{stopped:,}" if missing else pluralize(stopped, "run")
        counts.append(f"{count} {'was' if stopped == 1 else 'were'} stopped")
    return [", ".join(counts)] if counts else []


def read_study_result(folder: Path) -> StudyResult:
    """The results of the study in a folder from the runs that are there; nothing is trained, and nothing is tested.

    Raises LabError if the folder holds no study, or a run whose metrics are not those that its training saved.
    """
    study_folder, study = StudyFolder(folder), read_stored_study(folder / STUDY_FILE)
    results = study_folder.trial_results(study, {})
    for result in results:
        if result.folder is not None:
            require_saved_metrics(Run(result.folder))
    sections = analyze_study(study, results)
    return StudyResult(study, sections, None, (*read_plan_changes(folder), *note_other_images(sections)))


def evaluate_best_run(trial_results: Sequence[TrialResult], splits: DatasetSplits) -> BestOnTest | None:
    """The best run of all on the test set; None if no run has validation images to choose it by."""
    chosen = select_best(trial_results)
    if chosen is None or chosen.folder is None:
        return None
    _, validation = train_validation_split(chosen.trial.recipe, splits)
    assert validation is not None  # the best is chosen by its validation accuracy
    return make_best_on_test(chosen, trial_results, len(validation), Run(chosen.folder).test(splits=splits))


def previous_test_evaluations(study_folder: StudyFolder, best: BestOnTest | None) -> list[str]:
    """A note, if other runs of the study were tested before."""
    tested = {path.parent for path in (study_folder.folder / "runs").glob(f"*/{TEST_FILE}")}
    tested_before = sorted(tested - {best.trial_result.folder if best else None})
    if not tested_before:
        return []
    names = ", ".join(path.name for path in tested_before)
    return [
        f"the test set was used before in this study, with {names}: "
        f"the test accuracy is one of {len(tested_before) + 1} evaluations"
    ]
