"""Draw the figures of lecture.md: the page in Chromium, as its tests open it. `.venv/bin/python docs/lecture.py`"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from support.page_browser import chromium, page_in, served_app  # noqa: E402

WIDTH = 1280  # pixels, as a projector has
MAX_BYTES = 150_000
SLIDE, COUNT = "?tab=slide&projector=1", "?tab=count&projector=1"
FIGURES = {  # name: the address, what is waited for, what is done, what is shown
    "slide-start": (
        f"{SLIDE}&slide.k=2",
        "#slide-library:has-text('same z')",
        "",
        "section[aria-labelledby=slide-stage-title]",
    ),
    "slide-jacobian": (
        f"{SLIDE}&slide.k=2",
        "#slide-library:has-text('same z')",
        "document.querySelectorAll('#slide-jacobian-x td')[13].focus()",
        "section[aria-labelledby=slide-jacobians-title]",
    ),
    "slide-stride": (
        f"{SLIDE}&slide.stride=2",
        "#slide-library:has-text('same z')",
        "",
        "section[aria-labelledby=slide-shift-title]",
    ),
    "count-field": (
        f"{COUNT}&count.layer=8",
        "#count-title:has-text('simple_convnet')",
        "",
        "section[aria-labelledby=count-title]",
    ),
    "count-course": (COUNT, "#count-course:has-text('100,000')", "", "section[aria-labelledby=count-course-title]"),
}


def main() -> None:
    """Open each address, do what belongs to it, and keep the part that is shown, as WebP."""
    with tempfile.TemporaryDirectory() as folder, served_app(Path(folder) / "runs") as address, chromium() as browser:
        for name, (query, ready, script, part) in FIGURES.items():
            with page_in(browser, address + query, WIDTH) as page:
                page.locator(ready).wait_for(timeout=60_000)
                page.evaluate(script or "0")
                page.wait_for_timeout(500)
                image = Image.open(io.BytesIO(page.locator(part).screenshot()))
                file = DOCS / "figures" / f"lecture-{name}.webp"
                image.save(file, "WEBP", quality=70, method=6)
                assert file.stat().st_size <= MAX_BYTES, f"{file} is larger than {MAX_BYTES:,} bytes"
                print(f"{file.relative_to(DOCS)}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
