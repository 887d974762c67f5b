"""Where the nodes of a cluster leave their news and learn that they are to stop.

A process of its own, which imports nothing of convolab's: it starts at once and takes little memory.
"""


class Desk:
    """Holds news, as bytes that it does not look into, until they are fetched.

    >>> desk = Desk(); desk.leave(b"a trial is under way")
    False
    >>> desk.stop(); desk.leave(b"and again")
    True
    >>> desk.fetch(), desk.fetch()
    ([b'a trial is under way', b'and again'], [])
    """

    def __init__(self) -> None:
        self.news: list[bytes] = []
        self.stopping = False

    def leave(self, news: bytes) -> bool:
        """Take news in; the answer says whether to stop."""
        self.news.append(news)
        return self.stopping

    def fetch(self) -> list[bytes]:
        """All news since the last time, the oldest first."""
        news, self.news = self.news, []
        return news

    def stop(self) -> None:
        """From now on whoever leaves news is told to stop."""
        self.stopping = True
