"""How long `convolab handin verify` takes for a class: hand-ins of the size of the course's, made from its stored solutions.

python benchmarks/handin.py [--count 60] [--rerun N] prints the seconds of packing and of verifying.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from convolab.handin.homework import Homework, load_homework
from convolab.handin.pack import pack_homework
from convolab.handin.verify.verify import verify_hand_ins
from convolab.training.recipe import Recipe

STORED = Path(__file__).resolve().parents[1] / "notebooks" / "solution"
ANSWERS = "## 1(a)\n\nLocality, says {name}.\n\n## 1(b)\n\nBy the chain rule.\n\n## 1(c)\n\nCount them.\n"


def train_runs(homework: Homework, folder: Path) -> None:
    """The runs that the notebooks leave in a trial run on digits."""
    from convolab.data.catalog import load
    from convolab.training.run import Run

    for notebook in homework.notebooks:
        for seed in range(notebook.num_runs["digits-fast"]):
            base = Recipe.from_dict({"model": {"name": "simple_convnet"}, "training": {"epochs": 3, "seed": seed}})
            recipe = base.with_overrides({**homework.recipes[notebook.recipe], "data.limit": 600})
            Run.start(recipe, load("digits"), folder / "runs" / f"{notebook.name}-{seed}")


def change_times(run: Path, factor: float) -> None:
    """Give a run the times of another machine."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        record["train_seconds"] *= factor
        record["images_per_second"] /= factor
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def make_class(homework: Homework, folder: Path, count: int) -> None:
    """Pack so many hand-ins of equal size."""
    work = folder / "work"
    work.mkdir()
    train_runs(homework, work)
    for number in range(count):
        name = f"Person {number}"
        (work / homework.question1.answers).write_text(ANSWERS.format(name=name))
        for notebook in homework.notebooks:
            content = json.loads((STORED / f"{notebook.name}.ipynb").read_text())
            content["metadata"]["author"] = name
            (work / f"{notebook.name}.ipynb").write_text(json.dumps(content))
        for run in (work / "runs").iterdir():
            change_times(run, 1 + number / 64)
        pack_homework(homework, work, folder / f"{number}.zip", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="hand-ins")
    parser.add_argument("--rerun", help="runs of each that are trained again")
    wanted = parser.parse_args()
    homework = load_homework()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        make_class(homework, folder, wanted.count)
        packed = time.perf_counter()
        result = verify_hand_ins([folder], homework, rerun=wanted.rerun, seed=0)
        verified = time.perf_counter()
        size = sum(path.stat().st_size for path in folder.glob("*.zip")) / 1e6
    refused = sum(bool(report.refused) for report in result.reports)
    print(
        f"{wanted.count} hand-ins, {size:.0f} MB: packed in {packed - started:.1f} s, verified in {verified - packed:.1f} s"
    )
    print(f"{refused} refused")


if __name__ == "__main__":
    main()
