"""Where the nodes of a cluster leave their news and learn that they are to stop.

A process of its own, which imports nothing of convolab's: it starts at once and takes little memory.
"""


class EventQueue:
    """Holds news, as bytes that it does not look into, until they are fetched.

    >>> desk = Desk(); desk.leave(b"a trial is under way")
    False
    >>> desk.stop(); desk.leave(b"and again")
    True
    >>> desk.fetch(), desk.fetch()
    ([b'a trial is under way', b'and again'], [])
    """

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.stop_requested = False

    def put(self, event: bytes) -> bool:
        """Take news in; the answer says whether to stop."""
        self.events.append(event)
        return self.stop_requested

    def drain(self) -> list[bytes]:
        """All news since the last time, the oldest first."""
        news, self.events = self.events, []
        return news

    def request_stop(self) -> None:
        """From now on whoever leaves news is told to stop."""
        self.stop_requested = True
