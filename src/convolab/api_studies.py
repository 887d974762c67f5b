"""What a person calls in Python of studies: `convolab.run_study`, `compare` and `power`, with names and paths."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from convolab.core.errors import require, suggest
from convolab.core.stats import POWER
from convolab.core.trust import trust_all
from convolab.core.types import python_values
from convolab.data.catalog import load
from convolab.reports.live import InterruptHandler
from convolab.reports.live_study import live_study
from convolab.studies.compare import compare_named
from convolab.studies.coursework import coursework
from convolab.studies.executor import Executor, LocalExecutor
from convolab.studies.main_guard import require_guarded_main
from convolab.studies.pilot import measure_run_seconds, read_pilot
from convolab.studies.power import StudyPower, given_spreads, require_spreads, study_power
from convolab.studies.results import StudyResult
from convolab.studies.runner import execute_study
from convolab.studies.study import Study
from convolab.training.run import Run


def resolve_study(study: Study | str | Path) -> Study:
    """A study, given itself, by its file, or as "coursework"."""
    if isinstance(study, Study):
        return study
    require(
        isinstance(study, str | Path),
        "give a Study, the path of its file, or 'coursework': Study.from_dict makes one of a dict",
    )
    if study == "coursework":
        return coursework()
    require(not Path(study).is_dir(), f"{study} is a folder: give the study's file, {Path(study) / 'study.toml'}")
    is_file = isinstance(study, Path) or "/" in study or "." in study or Path(study).exists()
    require(
        is_file,
        f"there is no study '{study}': {suggest(str(study), ['coursework'])}, or give the path of a study's file",
    )
    return Study.read(study)


def run_study(
    study: Study | str | Path,
    out: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    executor: Executor | None = None,
    retrain_damaged: bool = False,
    hours: float | None = None,
    log: str | None = None,
    trust: bool = False,
) -> StudyResult:
    """Train every run of a study that is missing, show how it goes, and decide its contrasts.

    Killed at any moment, the same call continues; Ctrl-C, or a notebook's stop button, saves the running trials. In a
    script, call it below `if __name__ == "__main__":`, because trials are processes that import the script.

    Args:
        study: What to train and to decide: a `Study`, the path of its file, or "coursework", as `convolab.coursework`
            gives it of the digits.
        out: The study's folder; by default studies/NAME.
        data_dir: The folder that holds the dataset.
        executor: What trains; by default the cores of this machine.
        retrain_damaged: Whether to train damaged runs again instead of refusing them.
        hours: Where seeds are "until decided", after how long no further look is begun; the same call goes on.
        log: "tensorboard", "mlflow", "wandb" or "playback": where each run's epochs go too, below its folder.
        trust: Run the code that the study names and that you have not named or trusted before.

    Returns:
        The results of all trials, also when it was stopped; `result.save("report.html")` writes the report.

    Raises:
        LabError: Before any work, if a recipe cannot be trained on its images, or if the folder holds runs of other
            images or damaged ones.

    >>> import tempfile
    >>> rates = {"grid": {"optimizer.lr": [0.1, 0.01]}}
    >>> recipe = {"model": {"name": "shallow_net"}, "training": {"epochs": 1}}
    >>> study = Study.from_dict({"name": "rates", "seeds": [0], "recipe": recipe, "sections": {"lr": rates}})
    >>> run_study(study, tempfile.mkdtemp())
    StudyResult('rates': 2 of 2 runs, 1 section)
    """
    if executor is None or isinstance(executor, LocalExecutor):
        require_guarded_main()
    with trust_all(trust):
        study = resolve_study(study)
    with trust_all(trust), live_study(study) as shown, InterruptHandler("after the current steps") as interrupts:
        return execute_study(
            study,
            out or Path("studies") / study.name,
            data_dir=Path(data_dir) if data_dir is not None else None,
            executor=executor,
            retrain_damaged=retrain_damaged,
            hours=hours,
            log=log,
            on_event=shown.on_event,
            on_look=shown.print_line,
            on_plan=shown.on_plan,
            on_message=shown.print_line,
            should_stop=interrupts.stop_requested,
        )


def compare(runs: Run | str | Path | Sequence[Run | str | Path]) -> StudyResult:
    """How runs differ in their recipes and in what they reached, and how sure that is; nothing is trained.

    Runs that differ only in their seed form one arm; every arm is compared with the first.

    Args:
        runs: Runs or their folders, a folder that holds some, or "STUDY:ARM" with a study's folder. A study's folder alone
            gives what that study has found so far.

    Returns:
        The result; `result.sections[0].contrast_results` are the verdicts, `result.save("report.html")` writes the report.

    Raises:
        LabError: For fewer than two runs, runs of different images, the same run twice, or one without an epoch.

    >>> import tempfile
    >>> from convolab import train
    >>> runs = [train("shallow_net", epochs=1, seed=seed, out=tempfile.mkdtemp()) for seed in (0, 1)]
    >>> compare(runs)
    StudyResult('comparison': 2 of 2 runs, 1 section)
    """
    several = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    for run in several:
        require(isinstance(run, Run | str | Path), f"{run!r} is not a run: give runs, or the folders of runs")
    return compare_named(several)


def power(
    study: Study | str | Path,
    *,
    spread: float | Mapping[str, float] | None = None,
    pilot: Path | str | None = None,
    out: Path | str | None = None,
    power: float = POWER,
    time: bool = False,
    data_dir: Path | str | None = None,
    trust: bool = False,
) -> StudyPower:
    """Which differences a study can show, with how many seeds and in what time, before it is trained.

    Without a spread, and without runs to estimate it from, differences are in units of the spread.

    Args:
        study: What is to be trained: a `Study`, the path of its file, or "coursework".
        spread: The standard deviation of a contrast's difference over seeds, for all or by metric, in the unit that
            reports show: percentage points for accuracies, nats for losses.
        pilot: A folder of finished runs, to estimate from what is not given.
        out: The study's own folder, whose runs are taken where there is no pilot; by default studies/NAME.
        power: How often a true difference should be found.
        time: Train one recipe for two seconds, to say how long all take; otherwise the pilot's runs say it.
        data_dir: The folder that holds the dataset.
        trust: Run the code that the study names and that you have not named or trusted before.

    Returns:
        The answer for each contrast, which draws itself; `result.rows()` are its numbers.

    Raises:
        LabError: For a spread that is not positive, a power that is not between 0 and 1, an unknown metric, and a pilot that says nothing of one.

    >>> lr = {"arms": {"a": {}, "b": {"optimizer.lr": 0.1}}, "contrasts": [{"arm": "a", "baseline": "b"}]}
    >>> study = Study.from_dict({"name": "x", "seeds": [0, 1, 2], "sections": {"lr": lr}})
    >>> power(study, spread=0.5)
    StudyPower('x': 1 contrast)
    With 3 seeds, 0 of 1 contrast can show a difference of 1 percentage point; lr needs 5.
    """
    spread, power = python_values((spread, power))
    with trust_all(trust):
        study = resolve_study(study)
        study_power(study, {}, power)  # checks both
        spreads = {} if spread is None else given_spreads(study, spread)
        own = Path(out) if out is not None else Path("studies") / study.name
        run_seconds, notes = None, ()
        if pilot is not None or own.is_dir():
            seen = read_pilot(study, own if pilot is None else Path(pilot))
            spreads, run_seconds, notes = {**seen.spreads, **spreads}, seen.run_seconds, seen.notes
            if pilot is not None:
                require(
                    seen.num_runs, f"{pilot} holds no finished run: train some first, two seeds of each arm at least"
                )
                require_spreads(study, spreads, pilot)
        if time:
            data = study.trials[0].recipe.data  # sections may set it for all their arms
            root = Path(data_dir) if data_dir is not None else None
            run_seconds = measure_run_seconds(study, load(data.name, root, image_size=data.image_size))
        return study_power(study, spreads, power, run_seconds, notes)
