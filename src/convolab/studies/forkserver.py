"""How a trial's process starts; imports nothing slow, so that the server can start before all else."""

from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import ForkServerContext, SpawnContext


def worker_context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context of a study's workers.

    Workers are forked from a server that has imported torch once, which is started now if it was not before: a trial
    then starts in milliseconds and shares the memory that it only reads. The server does nothing else, so a fork loses
    no thread. Systems without a fork server (Windows) start each worker as a new interpreter, which imports torch
    itself.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    from multiprocessing import forkserver

    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "convolab.studies.forkserver_preload"])
    forkserver.ensure_running()
    return context
