"""Uploads: any file is an image or one line; they are bounded, kept for their own session, and gone with it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.page import ORIGIN, client_of

from convolab.app import sessions as module
from convolab.app.server import AppState
from convolab.app.sessions import MAX_IMAGES, MAX_QUIET, Sessions
from convolab.core.errors import LabError


def png(width: int = 8, height: int = 8, color: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), color, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def listed(client: TestClient) -> list[str]:
    """The images that a browser may choose beside the samples, as the page names them."""
    return [one["value"] for one in client.get("/api/images/list").json()["uploads"]]


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


GOOD = png(64, 64, 90)
HOSTILE = {
    "empty": b"", "zeros": bytes(1000), "text": b"hello", "half": GOOD[: len(GOOD) // 2], "signature alone": GOOD[:8],
    "header alone": GOOD[:33], "damaged": GOOD[:60] + b"\xff" * 40 + GOOD[100:], "bomb": bomb(50_000, 50_000), "wide": bomb(2_000_000_000, 1),
    "no pixels": bomb(0, 5), "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "html": b"<script>alert(1)</script>", "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) run\n", "pdf": b"%PDF-1.4\n",
    "zip": b"PK\x03\x04" + bytes(100), "pickle": b"\x80\x04\x95\x00cos\nsystem\n", "gif of nothing": b"GIF89a" + bytes(20),
    "bmp": b"BM" + b"\xff" * 60, "tiff": b"II*\x00" + b"\xff" * 60, "tiff loop": b"II*\x00\x08\x00\x00\x00\x01\x00" + b"\x08" * 40,
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(20), "jpeg": b"\xff\xd8\xff\xe0" + b"\xff" * 200, "ppm": b"P6 99999 99999 255\n",
    "ppm of nothing": b"P6 0 0 255\n", "numpy": b"\x93NUMPY\x01\x00", "elf": b"\x7fELF" + bytes(60), "utf-16": "P6".encode("utf-16"),
    "long line": b"P3 " + b"9" * 100_000, "icon": b"\x00\x00\x01\x00" + bytes(30), "psd": b"8BPS\x00\x01" + bytes(40),
}  # fmt: skip
NAMES = [
    "cat.png",
    "../../etc/passwd",
    "C:\\a.png",
    "<img src=x>.png",
    "a\nb.png",
    "\u202egnp.png",
    "a" * 5000,
    "",
    "\0",
    "con",
    "🐈.png",
]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_is_no_image_is_one_line_and_the_page_goes_on(client: TestClient, kind: str) -> None:
    answer = client.post("/api/uploads", params={"name": "x.png"}, content=HOSTILE[kind], headers=ORIGIN)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    assert listed(client) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_in_a_line_and_never_opened(client: TestClient, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    answer = client.post("/api/uploads", params={"name": name}, content=png(), headers=ORIGIN)
    assert answer.status_code == 200
    shown = answer.json()["name"]
    assert shown.isprintable()
    assert 0 < len(shown) <= 80
    assert "/" not in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sessions_images_are_its_own(state: AppState) -> None:
    first, second = client_of(state), client_of(state)
    made = first.post("/api/uploads", params={"name": "cat.png"}, content=png(), headers=ORIGIN).json()
    assert (made["name"], made["width"], made["height"]) == ("cat.png", 8, 8)
    assert listed(first) == [f"upload:{made['id']}"]
    assert listed(second) == []
    other = next(key for key in state.sessions.sessions if made["id"] not in state.sessions.sessions[key].uploads)
    with pytest.raises(LabError, match="upload it again"):
        state.sessions.upload(other, made["id"])


def test_a_session_keeps_so_many_images_and_the_oldest_goes() -> None:
    kept = Sessions()
    for number in range(MAX_IMAGES + 3):
        kept.add("a", f"{number}.png", png())
    assert next(upload.name for upload in kept.uploads("a")) == "3.png"
    assert len(kept.uploads("a")) == MAX_IMAGES


def test_all_sessions_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 500)
    time = iter(range(100))
    kept = Sessions(lambda: float(next(time)))
    keys = [kept.open("") for _ in range(3)]
    for key in keys:
        kept.add(key, "x.png", png())  # 192 bytes each
    assert list(kept.sessions) == keys[1:]  # the one that was quiet for longest is gone


def test_a_session_that_is_quiet_is_forgotten_with_its_images() -> None:
    now = [0.0]
    kept = Sessions(lambda: now[0])
    key = kept.open("")
    kept.add(key, "x.png", png())
    now[0] = MAX_QUIET - 1
    assert kept.open(key) == key
    now[0] += MAX_QUIET + 1
    assert kept.open("another") not in (key, "another")
    assert kept.uploads(key) == []
    assert kept.open(key) != key
