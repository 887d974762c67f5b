"""How far the long computations are, by browser: written by the thread that computes, read by whoever asks."""

import threading
from collections import OrderedDict

MAX_KEPT = 400  # of all browsers; the oldest goes


class ProgressBoard:
    """The latest news of each browser's computations. Safe to use from several threads.

    >>> board = ProgressBoard()
    >>> board.write("a browser", "fool", {"step": 3})
    >>> board.read("a browser", "fool"), board.read("another", "fool")
    ({'step': 3}, None)
    """

    def __init__(self) -> None:
        self.news: OrderedDict[tuple[str, str], object] = OrderedDict()
        self.lock = threading.Lock()

    def write(self, session: str, channel: str, value: object) -> None:
        """Replace the news; None takes them away."""
        with self.lock:
            self.news.pop((session, channel), None)
            if value is not None:
                self.news[session, channel] = value
            while len(self.news) > MAX_KEPT:
                self.news.popitem(last=False)

    def read(self, session: str, channel: str) -> object:
        """The latest news; None if there are none."""
        with self.lock:
            return self.news.get((session, channel))
