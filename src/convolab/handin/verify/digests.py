"""Whether an archive is as `convolab handin pack` wrote it. Its digests are no signature: they show carelessness."""

import html
import re
from collections.abc import Iterator

from convolab.core.outputs import is_own_output
from convolab.core.trust import sha256_of
from convolab.handin.homework import HOMEWORK_FILE, Homework
from convolab.handin.notebook_file import HandedInCell, one_line
from convolab.handin.pack import HAND_IN, homework_sha256
from convolab.handin.verify.archive import MANIFEST, HandIn
from convolab.handin.verify.signs import Sign, as_note

TAG = re.compile(r"<[^<>]*>")
MAX_PAGE_BYTES = 60_000_000
MAX_LINES = 500  # of a notebook that are sought on its page


def archive_signs(hand_in: HandIn, homework: Homework) -> Iterator[Sign]:
    """Files that are not those of the manifest, and an archive that was changed since it was packed."""
    digests = hand_in.manifest.get("sha256")
    digests = digests if isinstance(digests, dict) else {}
    for name, content in sorted(hand_in.files.items()):
        if name != MANIFEST and name not in digests:
            yield Sign(name, "it was added after the hand-in was packed: the manifest does not know it")
        elif name != MANIFEST and digests[name] != sha256_of(content):
            yield Sign(name, "it was changed after the hand-in was packed: its SHA-256 is not the manifest's")
    for name in sorted(digests.keys() - hand_in.files.keys()):
        yield Sign(one_line(str(name)), "it was taken out after the hand-in was packed")
    if not is_own_output(HAND_IN, hand_in.path, hand_in.path.stat().st_size, ""):
        yield as_note(
            hand_in.path.name, "it was not written like this by `convolab handin pack`: packed again, or changed"
        )
    own = hand_in.manifest.get("homework_sha256")
    copy = hand_in.files.get(HOMEWORK_FILE)
    if own not in (None, homework_sha256(homework)) or (
        copy is not None and sha256_of(copy) != homework_sha256(homework)
    ):
        yield as_note(
            HOMEWORK_FILE, "it was packed by another homework file than this check uses: give the right --homework"
        )


def page_signs(hand_in: HandIn, notebook: str, cells: list[HandedInCell]) -> Iterator[Sign]:
    """Outputs of a notebook that its page, which was made when it was packed, does not show."""
    page = hand_in.files.get(f"{notebook}.html")
    if page is None:
        return
    if len(page) > MAX_PAGE_BYTES:
        yield as_note(f"{notebook}.html", "it is too large to be compared with its notebook")
        return
    left = MAX_LINES
    raw = page.decode("utf-8", errors="replace")
    shown = squeeze(html.unescape(TAG.sub("", raw)))
    for cell in cells:
        lines = [line for line in cell.printed.splitlines() if any(char.isdigit() for char in line)][:left]
        left -= len(lines)
        missing = next((line for line in lines if squeeze(line) not in shown), None)
        if missing is not None:
            yield Sign(
                f"{notebook}.html, {cell.name}", f"it does not show `{one_line(missing)}`, which the notebook does"
            )
        for media, payload in cell.figures:
            if media != "image/svg+xml" and payload[:2000] not in raw:
                yield Sign(f"{notebook}.html, {cell.name}", "it shows another figure than the notebook")


def squeeze(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())
