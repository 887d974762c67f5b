"""The tabs, in the order of the page: each a module of its own, on the public face of convolab only."""

import importlib

from convolab.app.answers import Tab

TAB_NAMES = ("train", "compare", "explain", "fool", "locate", "count", "slide")


def load_tabs() -> list[Tab]:
    """The tabs of all modules."""
    return [importlib.import_module(f"convolab.app.tabs.{name}").TAB for name in TAB_NAMES]
