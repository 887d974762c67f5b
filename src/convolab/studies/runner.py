"""Conducting a study: check it wholly, train what is not trained yet, gather what came of it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from convolab.core.errors import LabError, need
from convolab.core.files import writing_to
from convolab.data.catalog import Pictures, load
from convolab.data.memmap import read_mapped, write_mapped
from convolab.studies.executor import Engine, Hear, Job, LocalEngine, News
from convolab.studies.outcomes import Outcome
from convolab.studies.results import BestOnTest, StudyResult, best_of, best_on_test, conclude
from convolab.studies.study import Study, Trial
from convolab.studies.trials import check, damage
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import training_pictures

Say = Callable[[str], None]


class StudyFolder:
    """Where a study lies.

    study.toml           what was asked for
    runs/KEY             the run of each recipe, by its key: sections that need the same run share it
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder)

    def run(self, recipe: Recipe) -> Path:
        """The folder of a recipe's run."""
        return self.path / "runs" / recipe.key

    def outcome(self, trial: Trial, reasons: dict[str, str]) -> Outcome:
        """What became of a trial; `reasons` are why trials failed, by recipe key."""
        folder = self.run(trial.recipe)
        if not (folder / "summary.json").exists():
            failed = trial.recipe.key in reasons
            return Outcome(trial, "failed" if failed else "missing", (), reasons.get(trial.recipe.key))
        run = Run(folder)
        status = run.status if run.status in ("finished", "diverged") else "stopped"
        reason = run.summary.get("reason")
        if status == "stopped" and trial.recipe.key in reasons:
            status, reason = "failed", reasons[trial.recipe.key]
        return Outcome(trial, status, tuple(run.history), reason, folder, run.summary)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process conducts a study; the lock falls with its process."""
        with writing_to(self.path):
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


def conduct(
    study: Study,
    out: Path | str,
    *,
    data_dir: Path | None = None,
    engine: Engine | None = None,
    repair: bool = False,
    hear: Hear = lambda news: None,
    plan: Callable[[list[Job], int], None] = lambda jobs, done: None,
    say: Say = lambda note: None,
    stop: Callable[[], bool] = lambda: False,
) -> StudyResult:
    """Train every run of a study that is not there yet, and conclude from all of them.

    Killed at any moment, the same call goes on. `plan` hears of the jobs before the first begins and of how many runs were
    done before; `hear` of each as it goes on; `say` of what a person should know.
    Raises LabError, before any work, if the study's recipes cannot be trained on its pictures, if the folder holds runs of
    other pictures, or if a run was damaged (unless `repair`: then it is trained anew).
    """
    folder = StudyFolder(out)
    names = {(trial.recipe.data.name, trial.recipe.data.size) for trial in study.trials}
    need(
        len(names) == 1,
        f"a study has one picture set, and the recipes name {', '.join(sorted(name for name, _ in names))}",
    )
    ((name, size),) = names
    pictures = load(name, data_dir, size=size)
    costs = checked(study, pictures)
    with folder.lock():
        look_over(folder, study, pictures, repair, say)
        study.write(folder.path / "study.toml")
        runs = {key: folder.run(recipe) for key, recipe in study.recipes.items()}
        jobs = [Job(study.recipes[key], path, costs[key]) for key, path in runs.items() if not is_done(path)]
        plan(jobs, len(runs) - len(jobs))
        reasons: dict[str, str] = {}

        def note(news: News) -> None:
            if news.kind == "failed":
                reasons[news.key] = news.reason or "for no known reason"
            hear(news)

        if jobs:
            with on_disk(pictures, folder.path / ".pictures") as place:
                del pictures  # what the workers map is enough
                (engine or LocalEngine()).run(jobs, place, note, stop)
                pictures = read_mapped(place)
                return gathered(folder, study, pictures, reasons)
        return gathered(folder, study, pictures, reasons)


def checked(study: Study, pictures: Pictures) -> dict[str, float]:
    """What each recipe costs, by key. Raises LabError, naming the arm, for one that cannot be trained; seeds are alike in that."""
    costs: dict[str, float] = {}
    of_arm: dict[tuple[str, str], float] = {}
    for trial in study.trials:
        arm = (trial.section, trial.arm)
        try:
            if arm not in of_arm:
                of_arm[arm] = costs.get(trial.recipe.key) or check(trial.recipe, pictures)
        except LabError as error:
            raise LabError(f"section '{trial.section}', arm '{trial.arm}': {error}") from error
        costs[trial.recipe.key] = of_arm[arm]
    return costs


def is_done(folder: Path) -> bool:
    return (folder / "summary.json").exists() and Run(folder).status in ("finished", "diverged")


def look_over(folder: StudyFolder, study: Study, pictures: Pictures, repair: bool, say: Say) -> None:
    """Hold what the folder has against the study: other pictures and damaged runs are refused, a change is told of."""
    before = folder.path / "study.toml"
    there = {path.parent.name for path in (folder.path / "runs").glob("*/summary.json")}
    if before.exists() and before.read_text() != study.to_toml():
        kept, gone = len(there & set(study.recipes)), len(there - set(study.recipes))
        say(
            f"the study was changed since: {kept} of its runs still hold, {len(study.recipes) - kept} are to be trained"
            + (
                f", {gone} are in no section now ({', '.join(sorted(there - set(study.recipes))[:5])}{', ...' if gone > 5 else ''})"
                if gone
                else ""
            )
        )
    damaged = {}
    for key in there & set(study.recipes):
        path = folder.run(study.recipes[key])
        if problem := damage(path, study.recipes[key]):
            damaged[path] = problem
        else:
            Run(path).need_same(pictures)
    need(
        repair or not damaged,
        f"{len(damaged)} of the runs {'is' if len(damaged) == 1 else 'are'} damaged: {'; '.join(damaged.values())}: put the files back, or train anew with --repair",
    )
    for path, problem in damaged.items():
        say(f"trained anew: {problem}")
        shutil.rmtree(path)


@contextmanager
def on_disk(pictures: Pictures, place: Path) -> Iterator[Path]:
    """The set laid out for workers to map, and gone afterwards."""
    shutil.rmtree(place, ignore_errors=True)  # what a kill left
    write_mapped(pictures, place)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def gathered(folder: StudyFolder, study: Study, pictures: Pictures, reasons: dict[str, str]) -> StudyResult:
    """The study's conclusions from the runs in its folder."""
    outcomes = tuple(folder.outcome(trial, reasons) for trial in study.trials)
    open_runs = {o.trial.recipe.key: o for o in outcomes if o.status not in ("finished", "diverged")}
    notes = [
        f"'{o.trial.arm}' of {o.trial.section}, seed {o.trial.seed}, {o.status}" + (f": {o.reason}" if o.reason else "")
        for o in open_runs.values()
    ]
    best = None
    if study.test_best and open_runs:
        notes.append(
            f"no run was tested: {len(open_runs)} are not done, and the test set is looked at once, when all are"
        )
    elif study.test_best:
        best = tested(outcomes, pictures)
        notes += second_looks(folder, best)
    return StudyResult(study, conclude(study, outcomes), best, tuple(notes))


def tested(outcomes: Sequence[Outcome], pictures: Pictures) -> BestOnTest | None:
    """The best run of all on the test set; None if no run held validation pictures back to choose it by."""
    chosen = best_of(outcomes)
    if chosen is None:
        return None
    _, validation = training_pictures(chosen.trial.recipe, pictures)
    return best_on_test(chosen, outcomes, len(validation), Run(chosen.folder).test(pictures=pictures))


def second_looks(folder: StudyFolder, best: BestOnTest | None) -> list[str]:
    """A remark, if other runs of the study met the test set before."""
    before = sorted(
        {path.parent for path in (folder.path / "runs").glob("*/test.json")} - {best.outcome.folder if best else None}
    )
    if not before:
        return []
    names = ", ".join(path.name for path in before)
    return [
        f"the test set was looked at before in this study, with {names}: the test figure is one of {len(before) + 1} looks"
    ]
