"""The server that every trial's process is forked from; imports nothing slow, so that it can be started before all else."""

from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


def forkserver_context() -> ForkServerContext:
    """The context whose processes are forked from a server that has imported torch once, begun now if it was not before.

    A trial so starts in milliseconds, and shares what it only reads. The server does nothing else, so no thread is lost in forking.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["__main__", "convolab.studies.forkserver_preload"])
    forkserver.ensure_running()
    return context
