"""Trainings and studies that the page starts: ordinary processes, one after another, which outlive the page and its server.

The queue is a file, so another server goes on with it. It lies in this user's own folder and not among the runs: whoever
gives a person a folder of runs must not give them commands to run.
"""

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from convolab.core.environment import data_root
from convolab.core.errors import LabError, require
from convolab.core.files import read_json, write_json
from convolab.core.records import validate_record

MAX_WAITING = 100  # jobs
MAX_ENDED = 50  # that are remembered
POLL_SECONDS = 0.5  # between two looks at what runs
NICENESS = 5  # of a training: whoever clicks goes first
LOG_TAIL = 4000  # bytes of its output that are looked at
LOCK_TIMEOUT = 10.0  # seconds

JobState = Literal["waiting", "running", "stopping", "ended"]


@dataclass
class PageJob:
    """One command of the queue."""

    id: str
    kind: Literal["train", "resume", "extend", "study"]
    arguments: list[str]  # of convolab
    run: str  # the folder that it writes, as the page names it
    state: JobState = "waiting"
    pid: int | None = None
    born: str | None = None  # when its process began, as the system says it: numbers of processes are used again
    code: int | None = None  # how it ended; None if nobody saw it
    message: str | None = None  # why it failed, in one line


class Jobs:
    """The queue of one folder of runs.

    Args:
        runs: the folder.
        folder: where the queue is kept; by default in this user's folder of convolab's.
    """

    def __init__(self, runs: Path, folder: Path | None = None) -> None:
        name = hashlib.sha256(os.fsencode(runs.resolve())).hexdigest()[:16]
        self.runs = runs
        self.folder = folder or data_root() / "app" / name
        self.file = self.folder / "queue.json"
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.wake = threading.Event()
        self.is_closed = False
        self.thread = threading.Thread(target=self._work, name="convolab-jobs", daemon=True)

    def start(self) -> None:
        """Go on with what waits, in a thread."""
        self.thread.start()

    def close(self) -> None:
        """End the thread; what trains goes on."""
        self.is_closed = True
        self.wake.set()
        if self.thread.is_alive():
            self.thread.join(timeout=5)

    def entries(self) -> list[PageJob]:
        """All jobs, the newest last."""
        return self._read()

    def reserved(self) -> set[str]:
        """The names of the folders that jobs will write, or write now."""
        return {job.run for job in self._read() if job.state != "ended"}

    def add(self, kind: Literal["train", "resume", "extend", "study"], arguments: Sequence[str], run: str) -> PageJob:
        """Put a command at the end of the queue. Raises LabError if there are too many, or one of the same folder."""
        with self._changing() as jobs:
            active = [job for job in jobs if job.state != "ended"]
            require(len(active) < MAX_WAITING, f"{len(active)} trainings wait already: stop some, or wait")
            require(not any(job.run == run for job in active), f"{run} is trained or waits already: see the list below")
            job = PageJob(secrets.token_hex(6), kind, list(arguments), run)
            jobs.append(job)
        self.wake.set()
        return job

    def stop(self, job_id: str) -> PageJob:
        """Take a job out of the queue, or stop its process so that its run can be resumed."""
        with self._changing() as jobs:
            job = next((job for job in jobs if job.id == job_id), None)
            require(job, "there is no such training any more: look at the list again")
            assert job is not None
            if job.state == "waiting":
                job.state, job.message = "ended", "taken out of the queue"
            elif job.state == "running" and job.pid is not None and process_birth(job.pid) == job.born:
                # One signal only: a second one would end it at once, with its last epoch's state.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(job.pid, signal.SIGTERM)
                job.state = "stopping"
        self.wake.set()
        return job

    def tick(self) -> bool:
        """Note what has ended, start what is next. Whether anything is left to do."""
        with self._changing() as jobs:
            for job in jobs:
                if job.state in ("running", "stopping"):
                    self._look(job)
            if not any(job.state in ("running", "stopping") for job in jobs):
                following = next((job for job in jobs if job.state == "waiting"), None)
                if following:
                    self._start(following)
            return any(job.state != "ended" for job in jobs)

    def _start(self, job: PageJob) -> None:
        # -P: nothing is imported from the current folder, which may be a stranger's.
        command = [sys.executable, "-P", "-m", "convolab", *job.arguments]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(os.open(self._log(job.id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        except OSError as error:
            job.state, job.message = "ended", f"it could not be started: {error.strerror}"
            return
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        job.state, job.pid, job.born = "running", process.pid, process_birth(process.pid)
        self.children[job.id] = process

    def _look(self, job: PageJob) -> None:
        """Note it if the process of a job has ended."""
        child = self.children.get(job.id)
        if child is not None:
            job.code = child.poll()
            if job.code is None:
                return
            del self.children[job.id]
        elif job.pid is not None and process_birth(job.pid) == job.born:
            return
        job.state = "ended"
        if job.code is not None and job.code < 0:
            job.message = "it was ended before it could save anything" if not self._has_run(job) else None
        elif job.code or not self._has_run(job):  # of a process that nobody waited for the run itself says how it went
            job.message = self._last_line(job.id)

    def _has_run(self, job: PageJob) -> bool:
        return (self.runs / job.run).is_dir()

    def _log(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.log"

    def _last_line(self, job_id: str) -> str | None:
        """The last message of a command: its error, if it failed."""
        try:
            with open(self._log(job_id), "rb") as file:
                file.seek(max(0, self._log(job_id).stat().st_size - LOG_TAIL))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return None
        errors = [line for line in lines if line.startswith("convolab: ")]
        return (errors or lines or [""])[-1].removeprefix("convolab: ") or None

    def _read(self) -> list[PageJob]:
        if not self.file.exists():
            return []
        values = read_json(self.file)
        require(isinstance(values, list), f"{self.file} is damaged: delete it, the runs are not in it")
        return [validate_record(PageJob, value, self.file) for value in values]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[PageJob]]:
        """The jobs, to change: only one process at a time, and written down at the end."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = FileLock(self.folder / ".lock", timeout=LOCK_TIMEOUT)
            lock.acquire()
        except Timeout:
            raise LabError("another convolab app holds the queue of these runs: try again") from None
        except OSError as error:
            raise LabError(
                f"the queue cannot be kept in {self.folder} ({error.strerror}): set CONVOLAB_DATA"
            ) from error
        try:
            jobs = self._read()
            before = [asdict(job) for job in jobs]
            yield jobs
            ended = [job for job in jobs if job.state == "ended"]
            for job in ended[: max(0, len(ended) - MAX_ENDED)]:
                jobs.remove(job)
                self._log(job.id).unlink(missing_ok=True)
            if (after := [asdict(job) for job in jobs]) != before:
                write_json(self.file, after)
        finally:
            lock.release()

    def _work(self) -> None:
        """Look twice a second while there is something to do, and else wait without a look."""
        while not self.is_closed:
            try:
                is_busy = self.tick()
            except LabError as error:
                print(f"convolab: {error}", file=sys.stderr)
                is_busy = True
                time.sleep(5)
            self.wake.wait(POLL_SECONDS if is_busy else None)
            self.wake.clear()


def process_birth(pid: int) -> str | None:
    """When a process began, in the system's own words; None if there is none, or it has ended.

    >>> process_birth(os.getpid()) == process_birth(os.getpid()) != None
    True
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except (OSError, IndexError):
        return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None
