"""Conducting a study: check it wholly, train what is not trained yet, gather what came of it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from convolab.core.errors import LabError, require
from convolab.core.files import translate_write_errors
from convolab.data.catalog import load
from convolab.data.memmap import read_memmap, write_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.studies.outcomes import TrialResult
from convolab.studies.results import BestOnTest, StudyResult, analyze_study, make_best_on_test, select_best
from convolab.studies.study import Study, Trial
from convolab.studies.trials import estimate_training_cost, find_corruption
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import train_validation_split

MessageCallback = Callable[[str], None]


class StudyFolder:
    """Where a study lies.

    study.toml           what was asked for
    runs/KEY             the run of each recipe, by its key: sections that need the same run share it
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder)

    def run_folder(self, recipe: Recipe) -> Path:
        """The folder of a recipe's run."""
        return self.path / "runs" / recipe.key

    def trial_result(self, trial: Trial, failure_reasons: dict[str, str]) -> TrialResult:
        """What became of a trial; `reasons` are why trials failed, by recipe key."""
        folder = self.run_folder(trial.recipe)
        if not (folder / "summary.json").exists():
            failed = trial.recipe.key in failure_reasons
            return TrialResult(trial, "failed" if failed else "missing", (), failure_reasons.get(trial.recipe.key))
        run = Run(folder)
        status = run.status if run.status in ("finished", "diverged") else "stopped"
        reason = run.summary.get("reason")
        if status == "stopped" and trial.recipe.key in failure_reasons:
            status, reason = "failed", failure_reasons[trial.recipe.key]
        return TrialResult(trial, status, tuple(run.history), reason, folder, run.summary)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process conducts a study; the lock falls with its process."""
        with translate_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                raise LabError(f"{self.path} is being worked on by another process: wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()


def run_study(
    study: Study,
    out: Path | str,
    *,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    repair: bool = False,
    on_event: EventCallback = lambda news: None,
    on_plan: Callable[[list[Job], int], None] = lambda jobs, done: None,
    on_message: MessageCallback = lambda note: None,
    stop: Callable[[], bool] = lambda: False,
) -> StudyResult:
    """Train every run of a study that is not there yet, and conclude from all of them.

    Killed at any moment, the same call goes on. `plan` hears of the jobs before the first begins and of how many runs were
    done before; `hear` of each as it goes on; `say` of what a person should know.
    Raises LabError, before any work, if the study's recipes cannot be trained on its pictures, if the folder holds runs of
    other pictures, or if a run was damaged (unless `repair`: then it is trained anew).
    """
    folder = StudyFolder(out)
    datasets = {(trial.recipe.data.name, trial.recipe.data.image_size) for trial in study.trials}
    require(
        len(datasets) == 1,
        f"a study has one picture set, and the recipes name {', '.join(sorted(name for name, _ in datasets))}",
    )
    ((name, size),) = datasets
    splits = load(name, data_dir, image_size=size)
    costs = estimate_study_costs(study, splits)
    with folder.lock():
        check_existing_runs(folder, study, splits, repair, on_message)
        study.write(folder.path / "study.toml")
        runs = {key: folder.run_folder(recipe) for key, recipe in study.recipes.items()}
        jobs = [Job(study.recipes[key], path, costs[key]) for key, path in runs.items() if not is_run_complete(path)]
        on_plan(jobs, len(runs) - len(jobs))
        failure_reasons: dict[str, str] = {}

        def record_event(news: JobEvent) -> None:
            if news.kind == "failed":
                failure_reasons[news.key] = news.reason or "for no known reason"
            on_event(news)

        if jobs:
            with memmapped_dataset(splits, folder.path / ".pictures") as dataset_folder:
                del splits  # what the workers map is enough
                (executor or LocalExecutor()).run(jobs, dataset_folder, record_event, stop)
                splits = read_memmap(dataset_folder)
                return collect_results(folder, study, splits, failure_reasons)
        return collect_results(folder, study, splits, failure_reasons)


def estimate_study_costs(study: Study, splits: DatasetSplits) -> dict[str, float]:
    """What each recipe costs, by key. Raises LabError, naming the arm, for one that cannot be trained; seeds are alike in that."""
    costs: dict[str, float] = {}
    cost_by_arm: dict[tuple[str, str], float] = {}
    for trial in study.trials:
        arm = (trial.section, trial.arm)
        try:
            if arm not in cost_by_arm:
                cost_by_arm[arm] = costs.get(trial.recipe.key) or estimate_training_cost(trial.recipe, splits)
        except LabError as error:
            raise LabError(f"section '{trial.section}', arm '{trial.arm}': {error}") from error
        costs[trial.recipe.key] = cost_by_arm[arm]
    return costs


def is_run_complete(folder: Path) -> bool:
    return (folder / "summary.json").exists() and Run(folder).status in ("finished", "diverged")


def check_existing_runs(
    folder: StudyFolder, study: Study, splits: DatasetSplits, repair: bool, on_message: MessageCallback
) -> None:
    """Hold what the folder has against the study: other pictures and damaged runs are refused, a change is told of."""
    previous_study = folder.path / "study.toml"
    existing_keys = {path.parent.name for path in (folder.path / "runs").glob("*/summary.json")}
    if previous_study.exists() and previous_study.read_text() != study.to_toml():
        num_reusable, num_unused = len(existing_keys & set(study.recipes)), len(existing_keys - set(study.recipes))
        on_message(
            f"the study was changed since: {num_reusable} of its runs still hold, {len(study.recipes) - num_reusable} are to be trained"
            + (
                f", {num_unused} are in no section now ({', '.join(sorted(existing_keys - set(study.recipes))[:5])}{', ...' if num_unused > 5 else ''})"
                if num_unused
                else ""
            )
        )
    damaged = {}
    for key in existing_keys & set(study.recipes):
        path = folder.run_folder(study.recipes[key])
        if problem := find_corruption(path, study.recipes[key]):
            damaged[path] = problem
        else:
            Run(path).require_same_data(splits)
    require(
        repair or not damaged,
        f"{len(damaged)} of the runs {'is' if len(damaged) == 1 else 'are'} damaged: {'; '.join(damaged.values())}: put the files back, or train anew with --repair",
    )
    for path, problem in damaged.items():
        on_message(f"trained anew: {problem}")
        shutil.rmtree(path)


@contextmanager
def memmapped_dataset(splits: DatasetSplits, folder: Path) -> Iterator[Path]:
    """The set laid out for workers to map, and gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left
    write_memmap(splits, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def collect_results(
    folder: StudyFolder, study: Study, splits: DatasetSplits, failure_reasons: dict[str, str]
) -> StudyResult:
    """The study's conclusions from the runs in its folder."""
    trial_results = tuple(folder.trial_result(trial, failure_reasons) for trial in study.trials)
    unfinished = {o.trial.recipe.key: o for o in trial_results if o.status not in ("finished", "diverged")}
    notes = [
        f"'{o.trial.arm}' of {o.trial.section}, seed {o.trial.seed}, {o.status}" + (f": {o.reason}" if o.reason else "")
        for o in unfinished.values()
    ]
    best = None
    if study.test_best and unfinished:
        notes.append(
            f"no run was tested: {len(unfinished)} are not done, and the test set is looked at once, when all are"
        )
    elif study.test_best:
        best = evaluate_best_run(trial_results, splits)
        notes += previous_test_evaluations(folder, best)
    return StudyResult(study, analyze_study(study, trial_results), best, tuple(notes))


def evaluate_best_run(trial_results: Sequence[TrialResult], splits: DatasetSplits) -> BestOnTest | None:
    """The best run of all on the test set; None if no run held validation pictures back to choose it by."""
    chosen = select_best(trial_results)
    if chosen is None:
        return None
    _, validation = train_validation_split(chosen.trial.recipe, splits)
    return make_best_on_test(chosen, trial_results, len(validation), Run(chosen.folder).test(splits=splits))


def previous_test_evaluations(folder: StudyFolder, best: BestOnTest | None) -> list[str]:
    """A remark, if other runs of the study met the test set before."""
    tested_before = sorted(
        {path.parent for path in (folder.path / "runs").glob("*/test.json")}
        - {best.trial_result.folder if best else None}
    )
    if not tested_before:
        return []
    names = ", ".join(path.name for path in tested_before)
    return [
        f"the test set was looked at before in this study, with {names}: the test figure is one of {len(tested_before) + 1} looks"
    ]
