"""Check a built site: every link inside leads to a page and an anchor, and no page loads anything from elsewhere."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"src", "srcset", "poster", "data", "background", "action", "xlink:href"}  # attributes; and href of <link>
CSS_LOAD = re.compile(r"""(?:url\(|@import\s+)['"]?((?:https?:)?//[^'")\s]+)""")


class PageParser(HTMLParser):
    """Collects a page's anchors, its links, and what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.is_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.is_style = tag == "style"
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "meta" and "url=" in values.get("content", ""):
            self.links.append(values["content"].partition("url=")[2])
        for name, value in values.items():
            if name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",")]
            elif name in LOADING or (tag == "link" and name == "href"):
                self.loads.append(value)
        self.loads += CSS_LOAD.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.is_style:
            self.loads += CSS_LOAD.findall(data)


@cache
def parse_page(path: Path) -> PageParser:
    parser = PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def is_outside(link: str) -> bool:
    """Whether a link leads away from the site."""
    parts = urlsplit(link)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "mailto")


def broken(page: Path, link: str) -> bool:
    """Whether a link inside the site leads nowhere: to no file, or to no anchor of a page."""
    parts = urlsplit(link)
    if parts.scheme == "data" or link in ("#", ""):
        return False
    if parts.scheme or parts.path.startswith("/"):  # neither works from a folder
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return True
    return (
        bool(parts.fragment) and target.suffix == ".html" and unquote(parts.fragment) not in parse_page(target).anchors
    )


def find_problems(site: Path) -> list[str]:
    """A line for each broken link, and for each thing that is loaded from elsewhere."""
    parse_page.cache_clear()
    problems = []
    for page in sorted(site.resolve().rglob("*.html")):
        parsed, name = parse_page(page), page.relative_to(site.resolve())
        problems += [f"{name}: loads {link} from elsewhere" for link in parsed.loads if is_outside(link)]
        inside = [link for link in parsed.links + parsed.loads if not is_outside(link)]
        problems += [f"{name}: no page or anchor at {link}" for link in inside if broken(page, link)]
    for style in sorted(site.resolve().rglob("*.css")):
        found = CSS_LOAD.findall(style.read_text(encoding="utf-8"))
        problems += [f"{style.relative_to(site.resolve())}: loads {link} from elsewhere" for link in found]
    return problems
