"""How a trial's process starts; imports nothing slow, so that the server can start before all else."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_all_start_methods, get_context, util
from multiprocessing.context import ForkServerContext, SpawnContext

MAX_SOCKET_FOLDER_BYTES = 60  # the path of the server's socket has at most 107, and the rest is multiprocessing's
SHORT_TEMP_FOLDER = "/tmp"  # multiprocessing makes a private folder there


def worker_context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context of a study's workers.

    Workers are forked from a server that has imported torch once, which is started now if it was not before: a trial
    then starts in milliseconds and shares the memory that it only reads. The server does nothing else, so a fork loses
    no thread. Systems without a fork server (Windows) start each worker as a new interpreter, which imports torch
    itself.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    choose_socket_folder()
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "convolab.studies.forkserver_preload"])
    with without_current_folder():
        resource_tracker.ensure_running()  # which lets interrupts through again, so before they are kept back
        with interrupts_kept_back():
            forkserver.ensure_running()
    return context


@contextmanager
def without_current_folder() -> Iterator[None]:
    """Processes that start inside import nothing from the current folder, which may be a stranger's, unless this one does."""
    if {"", os.getcwd()} & set(sys.path):
        yield
        return
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def interrupts_kept_back() -> Iterator[None]:
    """A Ctrl-C comes after the block; processes that start inside never get one.

    A terminal sends it to them too, and it would end the server while it imports torch: it ignores it only after that.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def choose_socket_folder() -> None:
    """Let multiprocessing keep its sockets in /tmp where the folder for temporary files has too long a path."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > MAX_SOCKET_FOLDER_BYTES and os.access(SHORT_TEMP_FOLDER, os.W_OK):
        tempfile.tempdir = SHORT_TEMP_FOLDER
        try:
            util.get_temp_dir()  # made once per process
        finally:
            tempfile.tempdir = before
