"""Build the site and check it: `make docs`. Exits with 1 for a warning, a broken link, or what is loaded from elsewhere."""

import argparse
import sys
from pathlib import Path

from check import find_problems
from sphinx.cmd.build import main as run_sphinx

ROOT = Path(__file__).resolve().parents[2]


def build_site(site: Path, cache: Path) -> int:
    """Build into a folder. Returns 0, or 1 where something is wrong, which is printed."""
    options = ["-q", "-W", "--keep-going", "-c", str(ROOT / "docs" / "site"), "-d", str(cache)]
    if run_sphinx([*options, str(ROOT), str(site)]):
        return 1
    problems = find_problems(site)
    print("\n".join(problems), end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "build" / "site", help="what a second build needs not do again"
    )
    given = parser.parse_args()
    failed = build_site(given.out, given.cache)
    if not failed:
        print(f"{given.out / 'index.html'}")
    sys.exit(failed)
