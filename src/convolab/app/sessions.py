"""What a browser uploads: images in memory, bounded in number, bytes and age, and gone with their session."""

import io
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convolab.core.errors import require
from convolab.core.escape import escape_line

if TYPE_CHECKING:
    from torch import Tensor

SESSION_COOKIE = "convolab_session"
MAX_IMAGES = 12  # of a session; the oldest goes for a new one
MAX_UPLOAD_PIXELS = 16_000_000  # of one image; 3 bytes each
MAX_SESSION_BYTES = 150_000_000
MAX_TOTAL_BYTES = 600_000_000  # of all sessions; the one that was quiet for longest goes
MAX_SESSIONS = 200
MAX_QUIET = 900.0  # seconds without a request, after which a session is over; an open page asks every minute
MAX_NAME = 80  # characters of a name that is shown


@dataclass
class Upload:
    """One image that a person gave."""

    id: str
    name: str  # as its file was called; shown, never opened
    image: "Tensor"  # uint8 [3, H, W]


@dataclass
class Session:
    """One browser."""

    last_seen: float
    uploads: dict[str, Upload] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(upload.image.numel() for upload in self.uploads.values())


class Sessions:
    """All browsers that were here lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.sessions: dict[str, Session] = {}
        self.lock = threading.Lock()
        self.decoding = threading.Lock()  # one at a time: a large image takes many times its bytes while it is decoded

    def open(self, given: str) -> str:
        """The id of a browser's session: the one it gives, if that is known, or a new one."""
        with self.lock:
            self._drop_quiet()
            key = given if given in self.sessions else secrets.token_urlsafe(24)
            if key not in self.sessions and len(self.sessions) >= MAX_SESSIONS:
                self._drop_quietest(key)
            self.sessions.setdefault(key, Session(0.0)).last_seen = self.clock()
            return key

    def add(self, key: str, name: str, content: bytes) -> Upload:
        """Decode an image and keep it. Raises LabError, naming it, for what is not an image or too large."""
        from convolab.data.image_io import decode_image

        name = escape_line(name.rpartition("/")[2].rpartition("\\")[2], MAX_NAME) or "image"
        with self.decoding:
            image = decode_image(io.BytesIO(content), name, MAX_UPLOAD_PIXELS)
        with self.lock:
            session = self.sessions.setdefault(key, Session(self.clock()))
            upload = Upload(secrets.token_urlsafe(9), name, image)
            session.uploads[upload.id] = upload
            while len(session.uploads) > MAX_IMAGES or session.num_bytes > MAX_SESSION_BYTES:
                del session.uploads[next(iter(session.uploads))]
            while sum(s.num_bytes for s in self.sessions.values()) > MAX_TOTAL_BYTES and len(self.sessions) > 1:
                self._drop_quietest(key)
            return upload

    def upload(self, key: str, upload_id: str) -> Upload:
        """An image of a session. Raises LabError if it has none of that id: other sessions' are not seen."""
        with self.lock:
            session = self.sessions.get(key)
            found = session.uploads.get(upload_id) if session else None
        require(found, "this image is not here any more: upload it again")
        assert found is not None
        return found

    def uploads(self, key: str) -> list[Upload]:
        """A session's images, the oldest first."""
        with self.lock:
            return list(self.sessions[key].uploads.values()) if key in self.sessions else []

    def _drop_quiet(self) -> None:
        oldest = self.clock() - MAX_QUIET
        for key in [key for key, session in self.sessions.items() if session.last_seen < oldest]:
            del self.sessions[key]

    def _drop_quietest(self, kept: str) -> None:
        others = [key for key in self.sessions if key != kept]
        if others:
            del self.sessions[min(others, key=lambda other: self.sessions[other].last_seen)]
