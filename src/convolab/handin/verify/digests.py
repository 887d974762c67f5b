"""Whether an archive is as `convolab handin pack` wrote it. Its digests are no signature: they show carelessness."""

import re
from collections.abc import Iterator

from convolab.core.errors import require
from convolab.core.files import sha256_of
from convolab.core.outputs import is_own_output
from convolab.handin.homework import HOMEWORK_FILE, MAX_HOMEWORK_BYTES, Homework
from convolab.handin.notebook_file import TAG, HandedInCell, one_line, unescape_html
from convolab.handin.pack import HAND_IN, homework_sha256
from convolab.handin.verify.archive import MANIFEST, HandIn
from convolab.handin.verify.signs import Sign, as_note

PAGE_FIGURE = re.compile(r"base64,([A-Za-z0-9+/=\s]+)")  # a figure of pixels in a page
TITLE = re.compile(
    rb"""(?m)^title[ \t]*=[ \t]*["']([^"'\r\n]{0,200})"""
)  # of a homework.toml of a stranger, which is not parsed
MAX_PAGE_BYTES = 60_000_000
MAX_PAGE_CHARS = 5_000_000  # of a page's text, which has no figures
MAX_LINES = 500  # of a notebook that are sought on its page
FIGURE_START = 2_000  # characters of a figure that are compared


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
    if has_other_homework(hand_in, homework):
        yield as_note(HOMEWORK_FILE, "its homework.toml is not the teacher's, by which it is verified here")
    elif hand_in.manifest.get("homework_sha256") not in (None, homework_sha256(homework)):
        yield as_note(
            HOMEWORK_FILE, "it was packed by another homework file than this check uses: give the right --homework"
        )


def require_course_homework(hand_in: HandIn, course: Homework) -> None:
    """Raise LabError for a hand-in whose own homework.toml is not the course's: only the teacher has the right file."""
    found = TITLE.search(hand_in.files.get(HOMEWORK_FILE, b"")[:MAX_HOMEWORK_BYTES])
    title = f' ("{one_line(found[1].decode(errors="replace"))}")' if found else ""
    require(
        not has_other_homework(hand_in, course),
        f"{hand_in.path} is of another homework{title}: give its file with --homework",
    )


def has_other_homework(hand_in: HandIn, homework: Homework) -> bool:
    """Whether a hand-in holds a homework.toml that differs from the homework; other ends of lines are no difference."""
    copy = hand_in.files.get(HOMEWORK_FILE)
    return copy is not None and copy.splitlines() != homework.text.encode().splitlines()


def page_signs(hand_in: HandIn, notebook: str, cells: list[HandedInCell]) -> Iterator[Sign]:
    """Outputs of a notebook that its page, which was made when it was packed, does not show."""
    page = hand_in.files.get(f"{notebook}.html")
    if page is None:
        return
    raw = page.decode("utf-8", errors="replace") if len(page) <= MAX_PAGE_BYTES else None
    shown = squeeze(unescape_html(TAG.sub("", raw or "")))
    if raw is None or len(shown) > MAX_PAGE_CHARS:
        yield as_note(f"{notebook}.html", "it is too large to be compared with its notebook")
        return
    left = MAX_LINES
    on_page = {squeeze(figure)[:FIGURE_START] for figure in PAGE_FIGURE.findall(raw)}
    for cell in cells:
        lines = [line for line in cell.printed.splitlines() if any(char.isdigit() for char in line)][:left]
        left -= len(lines)
        missing = next((line for line in lines if squeeze(line) not in shown), None)
        if missing is not None:
            yield Sign(
                f"{notebook}.html, {cell.name}", f"it does not show `{one_line(missing)}`, which the notebook does"
            )
        for media, payload in cell.figures:
            start = squeeze(payload)[:FIGURE_START]
            if media != "image/svg+xml" and start and start not in on_page:
                yield Sign(f"{notebook}.html, {cell.name}", "it shows another figure than the notebook")


def squeeze(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())
