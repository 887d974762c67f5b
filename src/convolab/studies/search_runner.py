"""Run a search: train its configurations rung by rung, as runs of one study that are paused and resumed."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from convolab.core.errors import LabError
from convolab.core.text import join_with_and, pluralize
from convolab.core.types import Json, MessageCallback
from convolab.data.catalog import load
from convolab.data.memmap import memmapped_dataset
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.studies.results import TrialResult
from convolab.studies.runner import (
    DATASET_FOLDER,
    STUDY_FILE,
    StudyFolder,
    estimate_costs,
    require_usable_runs,
)
from convolab.studies.search import RungScore, Search, best_third, propose, rung_epochs, score_at
from convolab.studies.section import Overrides
from convolab.studies.stored_study import read_stored_study, write_stored_study
from convolab.studies.study import Study, Trial

PlanCallback = Callable[[Study, list[Job], int], None]


@dataclass(frozen=True)
class TriedConfiguration:
    """One configuration of a search and how far it came."""

    overrides: Overrides
    result: TrialResult
    rung: int  # epochs of the last rung that it reached; 0: none
    score: RungScore | None  # there

    @property
    def name(self) -> str:
        return self.result.trial.arm

    def to_row(self) -> dict[str, Json]:
        """What a table has of it: fractions, nats and epochs."""
        return {
            "configuration": self.name,
            "rung_epochs": self.rung,
            "validation_accuracy": self.score[0] if self.score else None,
            "validation_loss": -self.score[1] if self.score else None,
            "status": self.result.status,
            "run": self.result.trial.recipe.key,
        }


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    search: Search
    tried: tuple[TriedConfiguration, ...]  # those of the last rung first, the best of each rung first
    is_complete: bool  # False: it was stopped

    @property
    def winner(self) -> TriedConfiguration | None:
        """The best of those that were trained for all epochs; None if none was, or the search was stopped."""
        first = self.tried[0]
        return first if self.is_complete and first.rung == self.search.recipe.training.epochs else None

    @property
    def is_default_best(self) -> bool:
        """Whether the winner is the default recipe itself, which may be among lists of values."""
        recipe = self.search.recipe
        return self.winner is not None and recipe.with_overrides(self.winner.overrides).key == recipe.key


def execute_search(
    search: Search,
    out: Path | str,
    *,
    data_dir: Path | None = None,
    executor: Executor | None = None,
    retrain_damaged: bool = False,
    on_event: EventCallback = lambda event: None,
    on_rung: MessageCallback = lambda message: None,
    on_plan: PlanCallback = lambda study, jobs, num_done: None,
    on_message: MessageCallback = lambda message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Train a search's configurations: at each rung the best third goes on, and the last has the winner.

    If all of a third diverge or fail, the best third of the others goes on instead.

    Every run has the recipe of all epochs; a rung pauses it, so that going on gives the bits of a run that was never
    paused. Killed at any moment, the same call goes on, and ends with the same result. The folder is that of a study
    with an arm for each configuration; the arguments are those of `execute_study`.

    Raises LabError, before any training, if a configuration cannot be trained on these images, if the folder holds
    something else, or if a run is damaged and `retrain_damaged` is off; "tpe" proposes some configurations later.

    >>> import tempfile
    >>> from convolab.studies.search import Range
    >>> from convolab.training.recipe import Recipe
    >>> recipe = Recipe.from_dict({"model": {"name": "shallow_net"}, "training": {"epochs": 3}})
    >>> search = Search("rates", recipe, {"optimizer.lr": Range(0.001, 1.0)}, count=6)
    >>> [tried.rung for tried in execute_search(search, tempfile.mkdtemp()).tried]
    [3, 3, 1, 1, 1, 1]
    """
    proposals = propose(search)
    batch = next(proposals)
    splits = load(search.recipe.data.name, data_dir, image_size=search.recipe.data.image_size, on_message=on_message)
    for note in splits.notes:
        on_message(note)
    folder = StudyFolder(out)
    folder.require_usable(search.study(batch))
    with folder.lock(), ExitStack() as stack:
        folder.require_usable(search.study(batch))
        if is_another_search(search.study(batch), folder.folder / STUDY_FILE):
            on_message("the search has changed since: runs that both have are kept, and the table is of this one alone")
        dataset_folder: Path | None = None

        def run_jobs(jobs: list[Job], on_job_event: EventCallback) -> None:
            nonlocal dataset_folder
            dataset_folder = dataset_folder or stack.enter_context(
                memmapped_dataset(splits, folder.folder / DATASET_FOLDER)
            )
            (executor or LocalExecutor()).run(jobs, dataset_folder, on_job_event, should_stop)

        state = SearchState(search, folder, run_jobs, on_event, on_rung, on_plan)
        rungs = rung_epochs(search.recipe.training.epochs)
        while True:
            new = state.add(batch)
            state.costs |= estimate_costs(new, splits)
            if len(rungs) < 3 and len(state.trial_of) == len(batch):
                rungs_text = join_with_and([str(rung) for rung in rungs])
                on_message(f"too few epochs to halve at 1/9 and 1/3 of them: scores are compared after {rungs_text}")
            require_usable_runs(folder, [trial.recipe for trial in new], splits, retrain_damaged, on_message)
            write_stored_study(state.study, folder.folder / STUDY_FILE)
            trials = [state.trial_of[repr(overrides)] for overrides in batch]
            if not state.train(trials, rungs[0]):
                return state.collect(is_complete=False)
            accuracies = [score[0] if (score := state.judge(trial, rungs[0])) else 0.0 for trial in trials]
            try:
                batch = proposals.send(accuracies)
            except StopIteration:
                break
        if len(state.trial_of) < search.count:
            on_message(f"the search has only {pluralize(len(state.trial_of), 'different configuration')}")
        finalists = state.halve(list(state.trial_of.values()), rungs)
        return state.collect(is_complete=finalists is not None)


def is_another_search(study: Study, path: Path) -> bool:
    """Whether a folder's study lacks configurations that this search begins with."""
    with suppress(LabError):
        return path.exists() and not study.recipes.keys() <= read_stored_study(path).recipes.keys()
    return True


@dataclass
class SearchState:
    """The configurations of a search so far, and what trains and judges them."""

    search: Search
    folder: StudyFolder
    run_jobs: Callable[[list[Job], EventCallback], None]
    on_event: EventCallback
    on_rung: MessageCallback
    on_plan: PlanCallback
    configurations: dict[str, Overrides] = field(default_factory=dict)  # by what they are
    rungs: dict[str, int] = field(default_factory=dict)  # by arm: the last that it was judged at
    costs: dict[str, float] = field(default_factory=dict)  # of all epochs, by recipe key
    failure_reasons: dict[str, str] = field(default_factory=dict)  # by recipe key

    def add(self, batch: Sequence[Overrides]) -> list[Trial]:
        """Add configurations, and return the new ones; a sampler may propose one again, which then is trained once."""
        new = {repr(overrides): overrides for overrides in batch if repr(overrides) not in self.configurations}
        self.configurations |= new
        self.study = self.search.study(list(self.configurations.values()))
        self.trial_of: dict[str, Trial] = dict(zip(self.configurations, self.study.trials, strict=True))
        return [self.trial_of[name] for name in new]

    def result(self, trial: Trial) -> TrialResult:
        return self.folder.trial_result(trial, self.failure_reasons)

    def judge(self, trial: Trial, rung: int) -> RungScore | None:
        """The score at a rung, whatever was trained since; None for a run that ended before with an error."""
        result = self.result(trial)
        return score_at(result.history, rung) if result.status == "finished" or len(result.history) >= rung else None

    def train(self, trials: Sequence[Trial], rung: int) -> bool:
        """Train up to a rung. False: it was stopped before all were there."""
        trials = list({trial.arm: trial for trial in trials}.values())
        epochs = self.search.recipe.training.epochs
        left = [result for trial in trials if not has_reached(result := self.result(trial), rung)]
        self.on_rung(f"{pluralize(len(trials), 'configuration')} up to epoch {rung} of {epochs}")
        jobs = [
            Job(
                recipe := result.trial.recipe,
                self.folder.run_folder(recipe),
                self.costs[recipe.key] * (rung - len(result.history)) / epochs,
                pause_after=rung,
            )
            for result in left
        ]
        self.on_plan(self.study, jobs, len(trials) - len(jobs))
        if jobs:
            self.run_jobs(jobs, self.record_event)
        for trial in trials:
            if self.judge(trial, rung):
                self.rungs[trial.arm] = rung
        return all(has_reached(self.result(t), rung) or t.recipe.key in self.failure_reasons for t in trials)

    def halve(self, trials: Sequence[Trial], rungs: Sequence[int]) -> list[Trial] | None:
        """Of trials at the first rung, those that reach the last; None if it was stopped.

        If all of the best third diverge or fail on the way, the best third of the others goes on instead.
        """
        here, *above = rungs
        finalists = left = [trial for trial in trials if self.judge(trial, here)]
        while above and left:
            arms = best_third({trial.arm: self.judge(trial, here) for trial in left})
            if not self.train(going_on := [trial for trial in left if trial.arm in arms], above[0]):
                return None
            if (finalists := self.halve(going_on, above)) != []:
                break
            left = [trial for trial in left if trial.arm not in arms]
        return finalists

    def record_event(self, event: JobEvent) -> None:
        if event.kind == "failed":
            self.failure_reasons[event.key] = event.reason or "unknown reason"
        self.on_event(event)

    def collect(self, *, is_complete: bool) -> SearchResult:
        """The configurations so far, ranked."""
        tried: list[TriedConfiguration] = []
        for name, trial in self.trial_of.items():
            rung = self.rungs.get(trial.arm, 0)
            score = self.judge(trial, rung) if rung else None
            tried.append(TriedConfiguration(self.configurations[name], self.result(trial), rung, score))
        tried.sort(key=lambda one: (one.rung, one.score or (-1.0, 0.0)), reverse=True)
        return SearchResult(self.search, tuple(tried), is_complete)


def has_reached(result: TrialResult, rung: int) -> bool:
    """Whether a run needs no more training to be judged at a rung."""
    return result.is_complete or len(result.history) >= rung
