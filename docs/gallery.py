"""Draw the figures of the pages, and write the page that shows them all: `make gallery`.

A figure is one in docs/gallery/ that a page shows right above a block of commands. The comment behind the last command
names the file that it draws. The commands run in a folder of their own; what they draw is stored small, as WebP.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
SHOWN = re.compile(r"^!\[([^\]]+)\]\(gallery/([\w-]+\.webp)\)\n```\n(.*?)```", re.MULTILINE | re.DOTALL)
FILES = re.compile(r"^`([\w.]+)`:\n```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)  # that a page writes, for its commands
MAX_WIDTH = 1100  # pixels: twice what a page gives it on a phone
QUALITY = 60  # of 100, as WebP counts
INTRODUCTION = """# Gallery

What the commands draw. `make gallery` runs them, stores the figures, and writes this page.
"""


@dataclass(frozen=True)
class Figure:
    """A figure of a page."""

    title: str
    name: str  # in docs/gallery/
    commands: str
    page: str  # that explains it
    section: str  # of the page

    @property
    def drawn(self) -> str:
        """The file that the last command draws."""
        return self.commands.rstrip().rpartition("# draws ")[2]

    @property
    def anchor(self) -> str:
        """The section's, as a code host makes it."""
        return re.sub(r"[^\w -]", "", self.section.lower()).replace(" ", "-")


def read_figures() -> list[Figure]:
    """The figures of all pages, in order."""
    figures = []
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for found in SHOWN.finditer(text) if path.name != "gallery.md" else ():
            section = re.findall(r"^#+ (.*)", text[: found.start()], re.MULTILINE)[-1]
            figures.append(Figure(*found.groups(), path.name, section))
    return figures


def gallery_page(figures: list[Figure]) -> str:
    """The page that shows them all."""
    entries = [
        f"## {figure.title}\n![{figure.title}](gallery/{figure.name})\n```\n{figure.commands}```\n"
        f"Explained in [{figure.section}]({figure.page}#{figure.anchor}).\n"
        for figure in figures
    ]
    return "\n".join([INTRODUCTION, *entries])


def draw(figure: Figure, folder: Path) -> None:
    """Run a figure's commands in a folder that has the page's files, and store what they draw."""
    for name, text in FILES.findall((DOCS / figure.page).read_text(encoding="utf-8")):
        (folder / name).write_text(text)
    for command in figure.commands.splitlines():
        arguments = shlex.split(command, comments=True)
        if arguments[0] != "convolab":
            raise ValueError(f"{figure.name}: {command!r} is not a command of convolab")
        subprocess.run(
            [sys.executable, "-m", *arguments], cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    with Image.open(folder / figure.drawn) as image:
        image = image.convert("RGB")
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
        image.save(DOCS / "gallery" / figure.name, quality=QUALITY, method=6)


def main() -> None:
    """Draw all figures, or those that are named, and write the page."""
    figures = read_figures()
    (DOCS / "gallery").mkdir(exist_ok=True)
    for figure in figures:
        if figure.name in sys.argv[1:] or len(sys.argv) == 1:
            with tempfile.TemporaryDirectory() as folder:
                draw(figure, Path(folder))
    (DOCS / "gallery.md").write_text(gallery_page(figures), encoding="utf-8")
    total = sum(path.stat().st_size for path in (DOCS / "gallery").iterdir())
    print(f"{len(figures)} figures, {total / 1000:.0f} kB together")


if __name__ == "__main__":
    main()
