"""A run: the folder in which one recipe becomes one trained network."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import cast

from convolab.core.calls import one_line_methods
from convolab.core.display import Displayable
from convolab.core.errors import LabError, require, suggest
from convolab.core.files import read_json, user_path, write_json, write_text
from convolab.core.records import validate_record
from convolab.core.run_files import METRICS_FILE, RECIPE_FILE, SUMMARY_FILE, TEST_FILE
from convolab.core.types import MessageCallback
from convolab.data.catalog import is_own_data, load
from convolab.data.image_io import ImageLike
from convolab.data.splits import NO_TEST, DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.own_code import OwnCode, find_own_code
from convolab.training.callbacks import NO_CALLBACKS, TrainingCallbacks
from convolab.training.chance import chance_caution
from convolab.training.checkpoint import read_metadata, read_weights
from convolab.training.epoch_log import LoggedRun, epoch_log, require_logger
from convolab.training.evaluate_run import find_mistakes, predict_image, record_test
from convolab.training.extend import extend_run
from convolab.training.history import EpochMetrics, History, best_epoch_of
from convolab.training.lock import LOCK_FILE, is_locked, run_lock
from convolab.training.network_check import warn_of_odd_logits
from convolab.training.playback import Playback, read_playback
from convolab.training.predictions import Mistakes
from convolab.training.recipe import Recipe
from convolab.training.recorder import RunRecorder
from convolab.training.resume import resume_run
from convolab.training.run_code import code_files, code_folder, find_edited_file, read_codes
from convolab.training.run_folder import (
    delete_own_files,
    new_run_folder,
    read_history,
    read_stored_recipe,
    read_summary,
    rename_fields,
    require_new_folder,
    require_run_folder,
)
from convolab.training.run_records import COMPLETED, EvaluationRecord, RunId, RunSummary, Status, new_summary
from convolab.training.setup import build_trainer, sparing_threads
from convolab.training.transfer import describe_start

__all__ = ["COMPLETED", "Run", "Status"]


@one_line_methods
class Run(Displayable):
    """A folder of a run, which can be read while it is written.

    recipe.toml            the recipe, every key written out
    metrics.jsonl          one line per epoch
    best.safetensors       the weights of the best validation accuracy
    last.safetensors       the weights of the last epoch
    state.safetensors      all that continues the run bit for bit; state.previous.safetensors the one before
    summary.json           data, versions, hardware, threads, and how it ended
    test.json              the test result, if there is one
    code/                  the source of a person's own parts, and of the modules beside them that they import

    Each file has a format number and names its run by `recipe_key` and `data_key`.

    Args:
        folder: made by `Run.start` or `convolab train`.
        trust: whether its copy of somebody's own network may run, now and later.

    Attributes:
        folder: where the run is.
        recipe: what it trains.
        summary: what summary.json holds.

    Raises LabError if the folder holds no run, or one of a later format.

    >>> import tempfile
    >>> recipe = Recipe.from_dict({"model": {"name": "shallow_net"}, "training": {"epochs": 2}})
    >>> run = Run.start(recipe, load("digits"), tempfile.mkdtemp())
    >>> run.status, len(run.history), run.net("last").classes[:3]
    ('finished', 2, ('0', '1', '2'))
    """

    _internal_names = frozenset({
        "code_note", "codes", "load_weights", "lock", "require_own_files", "require_resumable", "require_same_data",
        "require_same_recipe", "run_id",
    })  # fmt: skip

    def __init__(self, folder: Path | str, *, trust: bool = False) -> None:
        self.folder = Path(folder)
        require_run_folder(self.folder)
        self.recipe, self._file_key = read_stored_recipe(self.folder)
        self.summary: RunSummary = read_summary(self.folder)
        self._history = History()
        self._history_stat: tuple[int, int, int] | None = None
        if trust:
            for code in self.codes.values():
                code.trust()

    def __repr__(self) -> str:
        done = f"{len(self.history)} of {self.recipe.training.epochs} epochs"
        return f"Run('{self.folder}': {self.recipe.model.name} on {self.recipe.data.name}, {self.status}, {done})"

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        splits: DatasetSplits,
        out: Path | str | None = None,
        *,
        device: str = "cpu",
        data_dir: Path | str | None = None,
        callbacks: TrainingCallbacks = NO_CALLBACKS,
        log: str | None = None,
    ) -> "Run":
        """Create a new run folder and train the recipe in it.

        Args:
            recipe: what to train.
            splits: the dataset that the recipe names.
            out: the folder, new or empty; by default a new one in runs/.
            device: "cpu", "cuda" or "mps". A run has the same bits on the same device and number of threads; a long one
                takes fewer threads while other programs are busy, says so, and keeps their number.
            data_dir: where the dataset was found, if it was named, so that `load_splits` finds it again.
            callbacks: called while it trains.
            log: "tensorboard", "mlflow", "wandb" or "playback": where its epochs go too, below its folder.

        Raises LabError, with nothing written, if the recipe cannot be trained on these images or the folder is in use;
        Diverged if the loss becomes NaN or infinite.
        """
        require_new_folder(out)
        require_logger(log)
        codes = {part: find_own_code(name) for part, name in recipe.own_parts.items()}
        has_data_dir = data_dir is not None or is_own_data(recipe.data.name)  # whose paths begin at the current folder
        data_folder = str(user_path(data_dir or "").resolve()) if has_data_dir else None
        with sparing_threads(device, callbacks):
            trainer = build_trainer(recipe, splits, device, codes=codes)
            with new_run_folder(recipe, out) as folder:
                for part, code in codes.items():
                    code.write(code_folder(folder, part))
                recipe.write(folder / RECIPE_FILE)
                write_text(folder / METRICS_FILE, "")
                write_json(folder / SUMMARY_FILE, new_summary(recipe, splits, trainer, data_folder, device, codes))
                run = cls(folder)
                warn_of_odd_logits(trainer, callbacks)
                if trainer.pretrained:
                    callbacks.on_message(f"{recipe.model.name} {describe_start(trainer.pretrained)}")
                with epoch_log(LoggedRun(folder, run.run_id, recipe, trainer), callbacks, log) as logged:
                    RunRecorder(folder, recipe, run.summary, trainer).train(logged)
        return run

    def resume(
        self,
        splits: DatasetSplits | None = None,
        *,
        callbacks: TrainingCallbacks | None = None,
        log: str | None = None,
    ) -> "Run":
        """Continue from the last saved state, bit for bit as if never stopped; a finished run is left unchanged. Returns itself.

        `splits`, if given, are the images that it was trained on; else they are read again. It is shown as `convolab.train`
        shows a training, unless `callbacks` are given: `Callbacks()` shows nothing. `log` is as in `start`; a run that has a
        log goes on in it. It takes as many threads as it began with; `callbacks.on_message` is called if you chose others or
        there are fewer cores, and if the state is damaged. Raises LabError if the recipe or the data was changed,
        if another process is training the run, or if its files are of the first edition or of another run.
        """
        resume_run(self, splits, callbacks, log)
        return self

    def extend(
        self,
        epochs: int,
        out: Path | str | None = None,
        *,
        splits: DatasetSplits | None = None,
        callbacks: TrainingCallbacks | None = None,
        log: str | None = None,
    ) -> "Run":
        """Go on to so many epochs in all, in a new run that names this one, and return it; this one stays as it is.

        `out` and `log` are as in `start`, all else as in `resume`; the log has the epochs so far too.
        `callbacks.on_message` is called with whether that gives the bits of so many epochs from scratch: it does where the
        learning rates so far do not depend on the number of epochs in all, as with constant and step schedules.
        Raises LabError for a run that is not finished, or that stopped by itself (training.goal, training.patience).
        """
        return Run(extend_run(self, epochs, out, splits, callbacks, log))

    @property
    def run_id(self) -> RunId:
        """What this run's files name it by."""
        return RunId(self.summary["recipe_key"], self.summary["data_key"])

    @property
    def history(self) -> History:
        """The epochs done so far. The file is read again only when it has changed."""
        path = self.folder / METRICS_FILE
        stat = path.stat() if path.exists() else None
        key = stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key is None or key != self._history_stat:
            self._history = History(read_history(self.folder, self.run_id))
            self._history_stat = key
        return History(self._history)

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The epoch whose weights `best.safetensors` holds."""
        return best_epoch_of(self.history)

    @property
    def status(self) -> Status:
        """new, running, stopped (by the user), killed, failed, diverged or finished."""
        if self.summary["status"] != "finished" and not (self.summary["status"] == "running" and self.is_training):
            self.summary = read_summary(self.folder)  # another process may have trained it since this was read
            if self.summary["status"] == "running" and not self.is_training:
                return "killed"
        return self.summary["status"]

    @property
    def is_training(self) -> bool:
        """Whether a process is training this run now."""
        return is_locked(self.folder)

    @property
    def codes(self) -> dict[str, OwnCode]:
        """The run's copies of the code of somebody's own parts, by the part's name, such as "model" or "optimizer"."""
        return read_codes(self.folder, self.summary)

    @property
    def code_note(self) -> str | None:
        """What a person should know if the file that a part was named by was edited since the run began."""
        file = find_edited_file(self.summary, self.recipe)
        return file and f"{file} was edited since {self.folder} began: the run's own copy in code/ is used"

    def lock(self) -> AbstractContextManager[None]:
        """Only one process trains a run. Raises LabError if another one does."""
        return run_lock(self.folder)

    def load_splits(
        self,
        data_dir: Path | str | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
        on_message: MessageCallback | None = None,
    ) -> DatasetSplits:
        """The run's images, read again; for the callbacks see `convolab.load`.

        Raises LabError if they are not the ones it was trained on.
        """
        root = data_dir or self.summary["data"]["dir"]
        data = self.recipe.data
        splits = load(data.name, root, image_size=data.image_size, on_progress=on_progress, on_message=on_message)
        self.require_same_data(splits)
        return splits

    def require_same_data(self, splits: DatasetSplits) -> None:
        """Raise LabError unless these are the images the run was trained on."""
        data = self.summary["data"]
        fingerprints = splits.fingerprints
        for part in ("train", "validation", "test"):
            trained_on = data.get(f"{part}_sha256")
            # Test images that came later were no part of the training.
            require(
                fingerprints.get(f"{part}_sha256") == trained_on or (part == "test" and trained_on == NO_TEST),
                f"the {part} images of {self.recipe.data.name} are not those of {self.folder}: they have changed; "
                "name the folder of the original data, or start a new run",
            )

    def require_same_recipe(self) -> None:
        """Raise LabError if recipe.toml was changed since the run began; keys that convolab had not then do not count."""
        key = self.summary["recipe_key"]
        require(
            key in (self.recipe.key, self._file_key),
            f"{self.folder / RECIPE_FILE} was changed since the run began (key {self._file_key}, was {key}): "
            "restore it, or start a new run",
        )

    def require_own_files(self) -> None:
        """Raise LabError if recipe.toml was changed since the run began, or a file of tensors is another run's."""
        self.require_same_recipe()
        for path in sorted(self.folder.glob("[!.]*.safetensors")):
            self.run_id.require_own(path, read_metadata(path))

    @property
    def has_test_images(self) -> bool:
        """Whether its dataset had test images when it began."""
        fingerprints: Mapping[str, object] = self.summary["data"]
        return fingerprints.get("test_sha256") != NO_TEST

    def require_resumable(self) -> None:
        """Raise LabError for a run of the first edition, whose state does not name its run."""
        require(
            self.summary["format"] is not None,
            f"{self.folder} was written by convolab's first edition: it can be read and tested, but not resumed; "
            "start a new run",
        )

    def net(self, which: str = "best") -> ImageClassifier:
        """The trained network with its `best` or `last` weights, in evaluation mode, where it takes pixels in [0, 1] only.

        Raises LabError if the run has none yet, or the file is not this run's.
        """
        net = self.load_weights(which)[0]
        best = self.best_epoch if which == "best" else next(iter(self.history[-1:]), None)
        test = None
        if which == "best":
            with suppress(LabError):  # a damaged record is an error of who asks for it
                test = self.test_result
        cautions = [chance_caution(best, test, len(net.classes)), test.caution if test else ""]
        net.caution = "; ".join(filter(None, cautions))
        return net

    def load_weights(self, which: str) -> tuple[ImageClassifier, int]:
        """The network as `net` gives it, and the epoch its weights are of, according to their own file."""
        require(which in ("best", "last"), f"unknown weights '{which}': {suggest(which, ('best', 'last'))}")
        path = self.folder / f"{which}.safetensors"
        require(path.exists(), f"{self.folder} has no weights: none of its epochs was finished")
        net, metadata = read_weights(path)
        self.run_id.require_own(path, metadata)
        return net, cast("int", metadata.get("epoch", len(self.history)))

    @property
    def test_result(self) -> EvaluationRecord | None:
        """The record of the test, if it was made."""
        path = self.folder / TEST_FILE
        if not path.exists():
            return None
        values = read_json(path)
        record = rename_fields(values) if isinstance(values, Mapping) else values
        result = validate_record(EvaluationRecord, record, path)
        self.run_id.require_own(path, record)
        return result

    def test(
        self,
        *,
        data_dir: Path | str | None = None,
        splits: DatasetSplits | None = None,
        allow_unfinished: bool = False,
        on_message: MessageCallback | None = None,
    ) -> EvaluationRecord:
        """The best weights on the test set, recorded in test.json; a second call returns the record.

        Args:
            data_dir: where the dataset is, if it has moved.
            splits: the dataset, for a caller that has it in memory.
            allow_unfinished: test a run that has not done all its epochs.
            on_message: called with how much will be decoded to the disk, before it is.

        Raises LabError if the recipe or the data changed, if the run is not finished (unless `allow_unfinished`), or if
        other weights of this run were tested before.
        """
        return record_test(self, data_dir, splits, allow_unfinished, on_message)

    def mistakes(
        self, count: int = 60, *, data_dir: Path | str | None = None, splits: DatasetSplits | None = None
    ) -> Mistakes:
        """At most `count` test images that the tested weights get wrong, the highest probability of a wrong class first.

        It draws itself; `save("mistakes.html")` writes a page, .csv a table. The test's record stays as it is. `data_dir`
        and `splits` are as in `test`. Raises LabError if the weights that are its best now were not tested.
        """
        return find_mistakes(self, count, data_dir, splits)

    def playback(self) -> Playback:
        """What `log="playback"` kept: the first layer's filters and a few images' predictions after each epoch.

        Raises LabError if they were not kept, or if a file of them is damaged.
        """
        return read_playback(self.folder, self.run_id)

    def predict(self, image: ImageLike, top: int = 5, max_pixels: int | None = None) -> list[tuple[str, float]]:
        """The names of the `top` most probable classes of an image, with their probabilities in [0, 1], the highest first.

        The image is as `explain` takes it: a sample's name such as "chelsea", a path, an address, or one in memory; it is
        resized as the data's images. Raises LabError for weights or logits that are not finite, and for an image that has
        more than `max_pixels` before that, by default 50 million.
        """
        return predict_image(self, image, top, max_pixels)

    def delete(self) -> list[Path]:
        """Delete the run's own files, and its folder if that leaves it empty; returns the files that are left.

        Raises LabError if a process is training the run, and for a link to a run.
        """
        require(not self.folder.is_symlink(), f"{self.folder} is a link: delete the run that it leads to")
        with self.lock():
            delete_own_files(self.folder, code_files(self.folder, self.summary))
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
        remaining = sorted(self.folder.iterdir())
        if not remaining:
            self.folder.rmdir()
        return remaining
