"""Where other people's code runs: behind bubblewrap if it is there, else under limits, and not without a word."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.handin.pack import collect_evidence
from convolab.handin.verify import fence
from convolab.handin.verify.archive import write_files
from convolab.handin.verify.evidence import RunEvidence, read_evidence
from convolab.handin.verify.fence import (
    Limits,
    Permission,
    bubblewrap,
    dataset_folders,
    fence_arguments,
    job_environment,
    run_fenced,
    run_process,
    work_folder,
)
from convolab.handin.verify.fenced_job import execute_notebook
from convolab.handin.verify.rerun import ACCURACY_TOLERANCE, LOSS_TOLERANCE, RunChoice, rerun_signs
from convolab.models.registry import trust_named
from convolab.training.recipe import Recipe
from convolab.training.run import Run

NET = """
from torch import nn

import helper


class Net(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], helper.WIDTH), nn.ReLU(), nn.Linear(helper.WIDTH, classes))
"""
FAKE = """#!{python}
import json, os, sys
words = sys.argv[1:]
if words[-1] == "true":
    sys.exit({probe})
with open({record!r}, "w") as file:
    json.dump(words, file)
start = words.index({python!r})
os.execv(words[start], words[start:])
"""


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    """What is known of bubblewrap is found again in each test."""
    bubblewrap.cache_clear()
    yield
    bubblewrap.cache_clear()


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)


def fake_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: int = 0) -> Path:
    """A program that is called like bubblewrap, writes down its words, and runs what stands behind them."""
    program, record = tmp_path / "bin" / "bwrap", tmp_path / "words.json"
    program.parent.mkdir()
    program.write_text(FAKE.format(python=sys.executable, record=str(record), probe=probe))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return record


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of a person: one of a network of convolab, one of their own."""
    folder = tmp_path_factory.mktemp("person")
    (folder / "net.py").write_text(NET)
    (folder / "helper.py").write_text("WIDTH = 12\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trust_named("net.py:Net")
        for name, network in (("plain", "shallow_net"), ("own", "net.py:Net")):
            recipe = Recipe.from_dict({"model": {"name": network}, "data": {"limit": 200}, "training": {"epochs": 2}})
            Run.start(recipe, load("digits"), folder / "runs" / name).test()
    return folder


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> dict[str, RunEvidence]:
    """The evidence that is packed of them, of a person whose code is trusted by nobody here."""
    notes: list[str] = []
    write_files(collect_evidence(trained, notes), tmp_path / "hand-in")
    assert notes == []
    return {run.name: run for run in read_evidence(tmp_path / "hand-in")}


def of_strangers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is trusted: neither by this user's record, nor by this process."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("convolab.core.trust._TRUSTED_HERE", set())


def lines(run: RunEvidence, **options: object) -> list[tuple[str, str]]:
    return [(sign.weight, sign.what) for sign in rerun_signs(run, Permission(**options))]


BITS = [("confirmed", "trained again: 2 epochs and the weights agree bit by bit")]


@pytest.mark.slow
def test_the_bits_of_a_run_are_trained_again_without_a_fence_where_no_code_is_a_persons_own(
    runs: dict[str, RunEvidence], no_bubblewrap: None
) -> None:
    assert lines(runs["plain"]) == BITS


@pytest.mark.slow
def test_own_code_is_packed_and_runs_only_with_trust_and_only_with_a_fence_or_a_word(
    runs: dict[str, RunEvidence], no_bubblewrap: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = runs["own"]
    assert sorted(path.name for path in (own.folder / "code").iterdir()) == ["helper.py", "net.py"]
    of_strangers(monkeypatch, tmp_path)
    [(weight, what)] = lines(own, unfenced=True)
    assert weight == "skipped"
    assert "evidence/own/code/" in what
    assert "is code that you have not trusted yet (SHA-256 " in what
    [(weight, what)] = lines(own, trust=True)
    assert weight == "skipped"
    assert "there is no fence, and this code could do all that you can: install bubblewrap, or add --unfenced" in what
    assert not (tmp_path / "data").exists()  # nothing was recorded as trusted
    assert lines(own, unfenced=True, trust=True) == BITS
    assert lines(own, unfenced=True) == BITS  # remembered


@pytest.mark.slow
def test_code_that_differs_from_its_run_or_is_not_there_is_not_run(runs: dict[str, RunEvidence]) -> None:
    own = runs["own"]
    (own.folder / "code" / "helper.py").write_text("WIDTH = 13\n")
    [(weight, what)] = lines(own, unfenced=True, trust=True)
    assert (weight, "was changed since the run began" in what) == ("skipped", True)
    shutil.rmtree(own.folder / "code")
    [(weight, what)] = lines(own, unfenced=True, trust=True)
    assert (weight, "cannot read" in what) == ("skipped", True)


@pytest.mark.slow
def test_behind_bubblewrap_a_job_sees_python_and_its_own_folder_only(
    runs: dict[str, RunEvidence], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = fake_bubblewrap(tmp_path, monkeypatch)
    assert lines(runs["own"], trust=True) == BITS
    words = json.loads(record.read_text())
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--cap-drop"} <= set(words)
    writable = [words[i + 1] for i, word in enumerate(words) if word == "--bind"]
    assert len(writable) == 1
    assert Path(writable[0]).name.startswith("convolab-verify-")
    seen = {words[i + 1] for i, word in enumerate(words) if word.startswith("--ro-bind")}
    assert str(Path.home()) not in seen
    assert "/" not in seen
    assert "/etc" not in seen


def test_bubblewrap_that_does_not_work_here_is_no_fence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_bubblewrap(tmp_path, monkeypatch, probe=1)
    assert fence.fence_kind() == "limits"
    with pytest.raises(LabError, match="add --unfenced"):
        fence.require_fence(False)
    fence.require_fence(True)


CIFAR = "cifar-10-batches-py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A person's folder of convolab: a published dataset beside what is their own."""
    folder = tmp_path / "data"
    for name in (CIFAR, "app/logs", "cache/decoded", "pets"):
        (folder / name).mkdir(parents=True)
    (folder / CIFAR / "batches.meta").write_text("names")
    (folder / "trusted_code").write_text("0" * 64)
    return folder


def test_of_a_persons_data_the_fence_shows_the_published_datasets_alone(data: Path, tmp_path: Path) -> None:
    assert dataset_folders(data) == {CIFAR: data / CIFAR}
    assert dataset_folders(data / CIFAR) == {CIFAR: data / CIFAR}  # --data-dir may be the dataset's own folder
    assert dataset_folders(tmp_path / "none") == {}
    words = fence_arguments(tmp_path / "work", data)
    seen = [words[i + 2] for i, word in enumerate(words) if word.startswith("--ro-bind")]
    assert [path for path in seen if Path(path).is_relative_to(data)] == [str(data / CIFAR)]
    assert str(tmp_path) not in seen


def test_the_fence_is_made_of_these_words_and_no_others(data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = fence_arguments(work, data)
    after = dict(pairwise(words))
    flags = {"--unshare-all", "--die-with-parent", "--new-session"}
    places = {"--proc", "--dev", "--tmpfs", "--ro-bind-try", "--ro-bind", "--bind", "--remount-ro", "--chdir"}
    assert {word for word in words if word.startswith("--")} == flags | places | {"--cap-drop"}
    assert (after["--cap-drop"], after["--proc"], after["--dev"]) == ("ALL", "/proc", "/dev")
    assert (after["--tmpfs"], after["--remount-ro"], after["--chdir"]) == ("/tmp", "/", str(work))
    assert words.count("--bind") == 1
    assert words[-7:] == ["--bind", str(work), str(work), "--remount-ro", "/", "--chdir", str(work)]
    # What comes later lies on top: packages may be in /tmp.
    assert words.index("--tmpfs") < words.index("--ro-bind-try")


@pytest.mark.slow
def test_a_notebook_finds_the_published_datasets_and_nothing_else_of_a_persons_data(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("nbclient", reason="notebooks are not installed: pip install 'convolab[notebook]'")
    no_kernel = SimpleNamespace(execute=lambda env: None)
    monkeypatch.setattr("nbclient.NotebookClient", lambda *args, **options: no_kernel)
    for variable in ("CONVOLAB_FAST", "CONVOLAB_HOMEWORK_DATA"):
        monkeypatch.setenv(variable, "")  # so that what the job sets is undone
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "home"))
    (tmp_path / "q.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    folders = {name: str(path) for name, path in dataset_folders(data).items()}
    job = {"notebook": "q.ipynb", "fast": True, "data": "cifar10", "threads": None, "datasets": folders}
    assert execute_notebook(tmp_path, job) == {"executed": "executed.ipynb"}
    assert [path.name for path in (tmp_path / "home").iterdir()] == [CIFAR]
    assert (tmp_path / "home" / CIFAR / "batches.meta").read_text() == "names"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt install bubblewrap")
def test_the_real_fence_hides_files_processes_and_the_network(data: Path, tmp_path: Path) -> None:
    if bubblewrap() is None:
        pytest.skip("this system does not allow bubblewrap its namespaces")
    secret = tmp_path / "secret"
    secret.write_text("key")
    probe = f"""
import os, socket
assert not os.path.exists({str(secret)!r})
assert os.listdir({str(data)!r}) == [{CIFAR!r}]
assert open({str(data / CIFAR / "batches.meta")!r}).read() == "names"
assert not os.path.exists(os.path.expanduser("~root/.ssh")) and not os.path.exists("/home")
assert len([name for name in os.listdir("/proc") if name.isdigit()]) < 5
for path in ("/usr/x", "/x"):
    try:
        open(path, "w")
    except OSError:
        continue
    raise SystemExit(path)
try:
    socket.create_connection(("1.1.1.1", 53), 2)
except OSError:
    open("done", "w")
"""
    with work_folder() as folder:
        command = [str(bubblewrap()), *fence_arguments(folder, data), sys.executable, "-c", probe]
        code, log = run_process(command, folder, job_environment(folder), 60)
        assert (code, log) == (0, "")
        assert (folder / "done").exists()


def test_a_job_sees_nothing_of_this_users_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    environment = job_environment(tmp_path)
    assert "key" not in environment.values()
    assert {environment[name] for name in ("HOME", "TMPDIR")} == {str(tmp_path)}
    assert environment["CONVOLAB_DATA"].startswith(str(tmp_path))  # not where trust is recorded


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    assert run_process([sys.executable, "-c", code], tmp_path, dict(os.environ), 0.5)[0] is None
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_limits_on_memory_files_and_time_end_a_job_in_one_line(
    runs: dict[str, RunEvidence], no_bubblewrap: None
) -> None:
    for limits, words in (
        (Limits(memory_bytes=50_000_000), "not trained again"),
        (Limits(file_bytes=1_000), "not trained again"),
        (Limits(seconds=0.05), "it took more than 0.1 s and was ended"),
    ):
        [(weight, what)] = lines(runs["plain"], limits=limits)
        assert weight == "skipped"
        assert words in what
        assert "\n" not in what


FORK_WITHOUT_END = """
import os, resource, time
from convolab.handin.verify import fenced_job
if os.getuid() == 0:
    os.setuid(65534)  # root has no limit on processes
fenced_job.MAX_MORE_PROCESSES = 20
fenced_job.set_limits(10**10, 10**10, 100, 60)
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            time.sleep(600)
        count += 1
except BlockingIOError:
    print(count)
"""


@pytest.mark.timing
def test_a_job_that_starts_processes_without_end_is_refused_more_and_leaves_none(tmp_path: Path) -> None:
    code, log = run_process([sys.executable, "-c", FORK_WITHOUT_END], tmp_path, dict(os.environ), 60)
    assert code == 0
    assert 1 <= int(log) <= 20
    deadline = time.monotonic() + 20  # a process ends a moment after its signal
    while running_with("MAX_MORE_PROCESSES = 20") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running_with("MAX_MORE_PROCESSES = 20")


def running_with(text: str) -> list[str]:
    """The processes whose command has this text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if text in (process / "cmdline").read_text(errors="replace"):
                found.append(process.name)
    return found


@pytest.mark.slow
def test_a_job_that_is_none_gives_its_error_in_one_line() -> None:
    with work_folder() as folder, pytest.raises(LabError, match="KeyError"):
        run_fenced(folder, {"kind": "none"}, Permission())
    assert not folder.exists()


@pytest.mark.slow
def test_what_cannot_agree_bit_by_bit_says_why_and_is_compared_within_a_tolerance(
    runs: dict[str, RunEvidence], no_bubblewrap: None
) -> None:
    plain = runs["plain"]
    assert plain.summary is not None
    plain.summary["hardware"] = {**plain.summary["hardware"], "processor": "Another One"}
    plain.weights = {"best.safetensors": "0" * 64}  # of another processor's bits
    [(weight, what)] = lines(plain)
    assert weight == "confirmed"
    assert (
        f"losses within {LOSS_TOLERANCE:g} and 5 %, accuracies within {ACCURACY_TOLERANCE:g}; not bit by bit: processor Another One, here"
        in what
    )
    plain.history = [type(epoch)(**{**vars(epoch), "train_loss": epoch.train_loss + 0.5}) for epoch in plain.history]
    [(weight, what)] = lines(plain)
    assert (weight, what.startswith("trained again, train_loss of epoch 1 is ")) == ("sign", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({'name = "digits"': 'name = "folder:/etc"'}, "its images 'folder:/etc' are its owner's"),
        ({'name = "digits"': 'name = "npz:/etc/passwd"'}, "are its owner's"),
        ({"epochs = 2": "epochs = 100000", "limit = 200": "limit = 50000"}, "would train for days"),
    ],
)
def test_a_recipe_that_names_other_files_or_trains_for_days_is_not_trained_again(
    runs: dict[str, RunEvidence], changes: dict[str, str], words: str, no_bubblewrap: None
) -> None:
    path = runs["plain"].folder / "recipe.toml"
    for old, new in changes.items():
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    [run] = [run for run in read_evidence(path.parents[2]) if run.name == "plain"]
    [(weight, what)] = lines(run)
    assert (weight, words in what) == ("skipped", True)


def test_runs_are_picked_by_the_teachers_seed(tmp_path: Path) -> None:
    runs = [RunEvidence(f"run-{number}", tmp_path) for number in range(20)]
    picked = RunChoice("3", 7).pick("Ada", runs)
    assert len(picked) == 3
    assert picked == RunChoice("3", 7).pick("Ada", runs)
    assert len({tuple(run.name for run in RunChoice("3", seed).pick("Ada", runs)) for seed in range(20)}) > 10
    assert picked != RunChoice("3", 7).pick("Bela", runs)
    assert RunChoice("all").pick("Ada", runs) == runs
    assert RunChoice("run-4").pick("Ada", runs) == [runs[4]]
    for words in ("3", "0"):
        with pytest.raises(LabError, match="--rerun"):
            RunChoice(words)


def test_only_code_that_was_let_run_counts_as_run(
    no_bubblewrap: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of_strangers(monkeypatch, tmp_path)
    files = [(Path("a.zip/q.ipynb"), "0" * 64)]
    for allowed in (Permission(unfenced=True), Permission(trust=True)):
        with pytest.raises(LabError):
            allowed.require(files)
        assert allowed.let_run == []
    allowed = Permission(trust=True, unfenced=True)
    allowed.require(files)
    assert allowed.let_run == ["a.zip/q.ipynb"]
