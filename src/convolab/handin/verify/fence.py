"""Where other people's code runs: behind bubblewrap's fence, or else under limits on memory, time, processes and files.

Behind the fence it sees Python, this package, the published datasets and its own empty folder, read-only but for that
folder; it has no network and no other processes. Under limits alone it can do what this user can do, so that needs a
word of the teacher.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import convolab
from convolab.core.environment import data_root
from convolab.core.errors import LabError, require
from convolab.core.files import parse_json, read_text, user_path
from convolab.core.text import format_bytes, format_duration
from convolab.core.trust import require_trusted, trust_all
from convolab.data.catalog import DATASETS
from convolab.handin.verify.fenced_job import JOB, RESULT

FenceKind = Literal["bubblewrap", "limits"]
MAX_SECONDS = 14_400.0  # of one job
MAX_MEMORY_BYTES = 12_000_000_000  # that one process may write to
MAX_FILE_BYTES = 2_000_000_000  # of one file that it writes
MAX_OPEN_FILES = 1_024
MAX_RESULT_BYTES = 60_000_000  # of what a job gives back
MAX_LOG_BYTES = 100_000
SYSTEM_FOLDERS = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix",
    "/etc/alternatives",
    "/etc/ssl",
    "/etc/fonts",
)
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/localtime")
KEPT_VARIABLES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "LD_LIBRARY_PATH",
    "CONVOLAB_LIMITS",
)
NO_FENCE = (
    "bubblewrap (bwrap) is not there or does not work here, so there is no fence, and this code could do all that you "
    "can: install bubblewrap, or add --unfenced (then only memory, time, processes and files are limited)"
)


@dataclass(frozen=True)
class Limits:
    """What one job may use; by default as much as the limits of this module say when it begins."""

    seconds: float = field(default_factory=lambda: MAX_SECONDS)
    memory_bytes: int = field(default_factory=lambda: MAX_MEMORY_BYTES)
    file_bytes: int = field(default_factory=lambda: MAX_FILE_BYTES)


@dataclass(frozen=True)
class Permission:
    """What the teacher allows, and where datasets are."""

    trust: bool = False  # run the code of others that a job needs, and remember it as trusted
    unfenced: bool = False  # run it where there is no fence
    data_dir: Path | None = None
    limits: Limits | None = None
    let_run: list[str] = field(default_factory=list)  # files of others that ran, or began to

    def require(self, files: Iterable[tuple[Path, str]]) -> None:
        """Raise LabError unless other people's code, by file and SHA-256, may run here; note that it does."""
        require_fence(self.unfenced)
        files = list(files)
        with trust_all(self.trust):  # only here: what of a hand-in is read in this process runs nothing, trusted or not
            require_trusted(files)
        self.let_run.extend(str(file) for file, _ in files)


@cache
def bubblewrap() -> str | None:
    """The path of bubblewrap, if it is there and may make a fence on this machine."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    # What is tried is what is used: some systems allow the program and forbid its namespaces.
    command = [
        program,
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return program if done.returncode == 0 else None


def fence_kind() -> FenceKind:
    """What code runs behind, on this machine."""
    return "bubblewrap" if bubblewrap() else "limits"


def describe_fence(kind: FenceKind) -> str:
    """What a report says of it."""
    if kind == "bubblewrap":
        return "behind bubblewrap: no network, nothing but its own folder to write to"
    return "without a fence: in a process of its own with limits on memory, time, processes and the size of files"


def require_fence(unfenced: bool) -> None:
    """Raise LabError unless other people's code may run here: behind a fence, or because the teacher allows it."""
    require(unfenced or bubblewrap(), NO_FENCE)


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder that is deleted afterwards, whatever was made in it."""
    folder = Path(tempfile.mkdtemp(prefix="convolab-verify-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_fenced(folder: Path, job: Mapping[str, object], permission: Permission) -> dict[str, Any]:
    """Do a job of `fenced_job` in a folder that holds its files, and give its result.

    Raises LabError if it takes too long, ends without a result, or gives one that cannot be read.
    """
    limits = permission.limits or Limits()
    program, data = bubblewrap(), user_path(permission.data_dir or data_root()).absolute()
    values = {
        **job,
        "limits": [limits.memory_bytes, limits.file_bytes, MAX_OPEN_FILES, int(limits.seconds) + 60],
        "data_dir": str(data),
        "datasets": {name: str(path) for name, path in dataset_folders(data).items()},
    }
    (folder / JOB).write_text(json.dumps(values), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "convolab.handin.verify.fenced_job", str(folder)]
    environment = job_environment(folder)
    if program:
        command = [program, *fence_arguments(folder, data), *command]
    code, log = run_process(command, folder, environment, limits.seconds)
    require(code is not None, f"it took more than {format_duration(limits.seconds)} and was ended")
    result = folder / RESULT
    is_there = result.is_file() and not result.is_symlink()
    last = (log.splitlines() or [""])[-1][:300]
    why = (
        f"ended by signal {-code} (more than {format_bytes(limits.memory_bytes)} of memory?)"
        if code is not None and code < 0
        else last or f"exit code {code}"
    )
    require(is_there, f"it ended without a result: {why}")
    values = parse_json(read_text(result, MAX_RESULT_BYTES), "its result")
    require(isinstance(values, dict), "its result holds no fields")
    if error := values.get("error"):
        raise LabError(str(error))
    return values


def job_environment(home: Path) -> dict[str, str]:
    """The environment of a job: nothing of this user's but what Python and torch need."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    own = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "CONVOLAB_DATA": str(home / ".convolab"),
        "PYTHONPATH": package_root(),
    }
    quiet = {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IPYTHONDIR": str(home / ".ipython"),
    }
    jupyter = {"JUPYTER_DATA_DIR": str(home / ".jupyter"), "JUPYTER_RUNTIME_DIR": str(home / ".run")}
    return {**kept, **own, **quiet, **jupyter}


def package_root() -> str:
    """The folder that convolab is imported from."""
    return str(Path(convolab.__file__ or "").resolve().parents[1])


def dataset_folders(data: Path) -> dict[str, Path]:
    """The folders of published datasets on this disk, by the names that they have in convolab's folder.

    What else is there is this user's own: code that is trusted, their images, what the page was asked for and its logs.
    """
    folders = {
        info.folder: data if data.name == info.folder or not info.missing_files(data) else data / info.folder
        for info in DATASETS.values()
        if info.folder
    }
    return {name: path for name, path in folders.items() if path.is_dir()}


def fence_arguments(folder: Path, data: Path) -> list[str]:
    """bubblewrap's arguments: what the job sees, and that it sees nothing else."""
    python = {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), package_root()}
    python |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}  # of a .pth file too
    readable = [
        *SYSTEM_FOLDERS,
        *SYSTEM_FILES,
        *sorted(map(str, python)),
        str(Path(sys.executable).resolve().parents[1]),
    ]
    arguments = [
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    arguments += ["--tmpfs", "/tmp"]
    for path in dict.fromkeys(readable):
        arguments += ["--ro-bind-try", path, path]
    for path in dataset_folders(data).values():
        arguments += ["--ro-bind", str(path.resolve()), str(path)]
    return [*arguments, "--bind", str(folder), str(folder), "--remount-ro", "/", "--chdir", str(folder)]


def run_process(
    command: list[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> tuple[int | None, str]:
    """Run a command in a session of its own; None as its exit code if it took too long. With it end all of its group."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
        log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_LOG_BYTES))
        return code, log.read().decode("utf-8", errors="replace")


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and, where the system has groups of processes, all that it started in its own."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
