"""The folder of a study: what is in it, that it is this study's, and that one process at a time writes there."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from convolab.core.errors import LabError, require
from convolab.core.files import require_no_link, translate_write_errors
from convolab.core.run_files import RECIPE_FILE, SUMMARY_FILE
from convolab.core.text import truncate_list
from convolab.studies.results import TrialResult
from convolab.studies.study import Study, Trial
from convolab.training.recipe import Recipe, read_toml
from convolab.training.run import Run
from convolab.training.run_folder import require_outside_runs

STUDY_FILE = "study.toml"
DATASET_FOLDER = ".images"  # what workers map, while they train


class StudyFolder:
    """Where a study is kept.

    study.toml           the study
    left_out.json        the plans of sections that the latest call left out, if it did
    plan_changes.json    what of its plan was changed after outcomes had been seen, if anything was
    runs/KEY             the run of each recipe, by the recipe's key; sections that need the same run share it
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        for name in ("runs", DATASET_FOLDER):
            require_no_link(self.folder / name)

    def run_folder(self, recipe: Recipe) -> Path:
        """The folder of a recipe's run. Raises LabError if it is a link."""
        folder = self.folder / "runs" / recipe.key
        require_no_link(folder)
        return folder

    def trial_result(self, trial: Trial, failure_reasons: dict[str, str]) -> TrialResult:
        """The result of a trial; `failure_reasons` are why trials failed, by recipe key."""
        key = trial.recipe.key
        folder = self.run_folder(trial.recipe)
        if not (folder / SUMMARY_FILE).exists():
            return TrialResult(trial, "failed" if key in failure_reasons else "missing", (), failure_reasons.get(key))
        run = Run(folder)
        reason = run.summary.get("reason")
        if run.status == "finished" or run.status == "diverged":
            return TrialResult(trial, run.status, tuple(run.history), reason, folder, run.summary)
        status = "failed" if key in failure_reasons or run.status == "failed" else "stopped"
        return TrialResult(trial, status, tuple(run.history), failure_reasons.get(key, reason), folder, run.summary)

    def trial_results(self, study: Study, failure_reasons: dict[str, str]) -> list[TrialResult]:
        """The result of every trial that there may be."""
        return [self.trial_result(trial, failure_reasons) for trial in study.possible_trials]

    def require_usable(self, study: Study) -> None:
        """Raise LabError if the folder holds anything but an earlier state of this very study."""
        path = self.folder / STUDY_FILE
        require_outside_runs(self.folder)
        require(not self.folder.exists() or self.folder.is_dir(), f"{self.folder} is a file: choose a folder")
        require(
            not any((self.folder / name).exists() for name in (SUMMARY_FILE, RECIPE_FILE)),
            f"{self.folder} holds a run: choose another folder for the study",
        )
        if path.exists():
            stored = read_toml(path, "study")
            name, sections = stored.get("name"), stored.get("sections")
            require(
                name == study.name,
                f"{self.folder} holds another study, {name!r}: choose another folder for {study.name!r}",
            )
            names = list(sections) if isinstance(sections, Mapping) else []
            runs = {summary.parent.name for summary in (self.folder / "runs").glob(f"*/{SUMMARY_FILE}")}
            is_same_question = bool(study.title) and stored.get("title") == study.title  # other sections of it
            require(
                not runs or is_same_question or {*names} & {*study.sections} or runs & {*study.recipes},
                f"{self.folder} holds another study of this name, which shares no section ({truncate_list(names, 3)}) "
                "and no run with this one, and its report would be replaced: choose another folder (--out)",
            )
        elif self.folder.exists():
            others = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")]
            require(
                not others,
                f"{self.folder} is not empty and holds no study ({truncate_list(sorted(others), 3)}): "
                "choose a new or empty folder",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let only one process run a study; the lock is released when its process ends."""
        is_new = not self.folder.exists()
        with translate_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            try:
                lock.acquire()
            except Timeout as error:
                raise LabError(f"{self.folder} is in use by another process: wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()
            if is_new and [path.name for path in self.folder.iterdir()] == [".lock"]:  # it was refused: nothing is left
                shutil.rmtree(self.folder, ignore_errors=True)
