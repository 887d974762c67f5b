"""The site: it builds without a warning, its links lead somewhere, it loads nothing from elsewhere, and it has what it should.

`make docs` runs the same build. Skipped where the extra `docs` is not installed; what needs no build is tested in any case.
"""

import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.browser import render_in_browser

import convolab
from convolab.handin.homework import load_homework

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MAX_GALLERY_BYTES = 1_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Building fails for a warning, for a broken link, and for what is loaded from elsewhere."""
    missing = [name for name in ("sphinx", "furo", "myst_parser", "latex2mathml") if find_spec(name) is None]
    if missing:
        pytest.skip(f"the site needs {' and '.join(missing)}: pip install 'convolab[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, DOCS / "site" / "build.py", "--out", out / "site", "--cache", out / "cache"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return out / "site"


def page_of(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_builds_and_begins_with_the_readme(site: Path) -> None:
    assert "README.html" in page_of(site, "index")
    assert "<h1>convolab" in page_of(site, "README")


@pytest.mark.slow
def test_every_page_is_a_page_of_the_site(site: Path) -> None:
    written = {path.with_suffix("").relative_to(DOCS) for path in DOCS.rglob("*.md")}
    built = {path.with_suffix("").relative_to(site / "docs") for path in (site / "docs").rglob("*.html")}
    assert built == written


@pytest.mark.slow
def test_every_item_of_the_homework_has_its_section_and_links_to_the_notebook(site: Path) -> None:
    pages = {path: path.read_text(encoding="utf-8") for path in (site / "docs").glob("homework_q*.html")}
    for item in load_homework().items:
        title = f"{item.id} {item.title}"
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        (page,) = [path for path, text in pages.items() if f'id="{anchor}"' in text]
        section = (DOCS / f"{page.stem}.md").read_text(encoding="utf-8").partition(f"## {item.id} ")[2]
        section = section.partition("\n## ")[0]
        assert f"{item.notebook}.ipynb#" in section, title
        for part in ("**Asked.**", "**To know.**", "**Common mistakes.**"):
            assert part in section, (title, part)
    for part in "abc":
        assert any(f'id="1{part}-' in text for text in pages.values())


@pytest.mark.slow
def test_the_reference_has_the_docstring_of_every_public_name(site: Path) -> None:
    page = page_of(site, "docs/reference")
    text = unescape(re.sub(r"<[^>]+>", "", page))
    for name in convolab.__all__:
        assert f'id="convolab.{name}"' in page, name
        summary = (getattr(convolab, name).__doc__ or "").strip().splitlines()[0].replace("`", "")
        assert summary in text, name
    train = text.partition("Train a network, show how it goes")[2].partition("Train a network that takes")[0]
    parts = ("Parameters", "overrides (Mapping[str, Json] | None)", "Returns", "Raises", ">>> run.status")
    assert [part for part in parts if part not in train] == []


@pytest.mark.slow
def test_formulas_are_mathml_and_no_script_draws_them(site: Path) -> None:
    page = page_of(site, "docs/question1")
    assert page.count("<math") > 20
    assert not re.search(r"<script[^>]*(mathjax|katex)", page, re.IGNORECASE)


@pytest.mark.slow
def test_the_search_finds_a_page_in_a_folder_without_a_server(site: Path, tmp_path: Path) -> None:
    options = ("--dump-dom", "--virtual-time-budget=20000")
    result = render_in_browser(site / "search.html", tmp_path, *options, query="?q=equivalent")
    assert 'href="docs/glossary.html' in result.stdout
    assert 'href="docs/studies.html' in result.stdout


def problems_of(folder: Path, **pages: str) -> list[str]:
    """What the check of links says of a site with these pages."""
    sys.path.insert(0, str(DOCS / "site"))
    try:
        from check import find_problems
    finally:
        sys.path.pop(0)
    for name, text in pages.items():
        (folder / f"{name}.{'css' if name == 'style' else 'html'}").write_text(text)
    return find_problems(folder)


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ('<a href="b.html">', ""),
        ('<a href="b.html#here">', ""),
        ('<a href="#top"><p id="top">', ""),
        ('<a href="https://example.org/x">', ""),
        ('<img src="data:image/png;base64,AAAA">', ""),
        ('<a href="c.html">', "no page or anchor at c.html"),
        ('<a href="b.html#there">', "no page or anchor at b.html#there"),
        ('<a href="#bottom">', "no page or anchor at #bottom"),
        ('<a href="/b.html">', "no page or anchor at /b.html"),
        ('<img src="missing.png">', "no page or anchor at missing.png"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js from elsewhere"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css from elsewhere"),
        ('<img src="http://example.org/x.png"/>', "loads http://example.org/x.png from elsewhere"),
        ('<img srcset="https://example.org/x.png 2x">', "loads https://example.org/x.png from elsewhere"),
        ('<p style="background: url(https://example.org/x.png)">', "loads https://example.org/x.png from elsewhere"),
        ('<style>@import "https://example.org/x.css";</style>', "loads https://example.org/x.css from elsewhere"),
    ],
)
def test_a_broken_link_and_what_is_loaded_from_elsewhere_are_found(link: str, problem: str, tmp_path: Path) -> None:
    expected = [f"a.html: {problem}"] if problem else []
    assert problems_of(tmp_path, a=link, b='<p id="here">') == expected


def test_a_style_sheet_that_loads_a_font_from_elsewhere_is_found(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path, style="@font-face { src: url('https://example.org/x.woff2') } p { background: url(y.png) }"
    )
    assert found == ["style.css: loads https://example.org/x.woff2 from elsewhere"]


def gallery_module() -> object:
    sys.path.insert(0, str(DOCS))
    try:
        import gallery
    finally:
        sys.path.pop(0)
    return gallery


def test_the_gallery_shows_every_figure_with_its_command_and_is_small() -> None:
    gallery = gallery_module()
    figures = gallery.read_figures()
    stored = {path.name for path in (DOCS / "gallery").iterdir()}
    assert {figure.name for figure in figures} == stored
    assert all(figure.drawn for figure in figures)
    assert sum(path.stat().st_size for path in (DOCS / "gallery").iterdir()) <= MAX_GALLERY_BYTES
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == gallery.gallery_page(figures), "run make gallery"
