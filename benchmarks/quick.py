"""In minutes, what every change should leave as it is: our ratio to the best peer in each of nine questions.

    python benchmarks/quick.py [--data-dir DIR] [--rounds 1] [--keep]

Each contender runs in a fresh process, in alternating rounds; a ratio is the median over rounds of ours to the best
peer of that round. The peers are the best of the full benchmarks beside this file, which time longer and ask more; of
fooling, foolbox as it comes. Without --data-dir, the folder that holds cifar-10-batches-py, the questions about training are left out.
Beside each ratio stands the one that ratios.json keeps for this kind of processor: a loss of more than 5 % is marked. Two runs
of the same code differ by a few percent too, so look again before you believe it. --keep puts the new ratios in their place.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import in_rounds, processor, table, verdict
from neighbors import busy_programs

LOSS = 0.05
HERE = Path(__file__).parent
KEPT = HERE / "ratios.json"  # by the kind of processor, and by question


@dataclass(frozen=True)
class Question:
    """What is timed: our command, the peers' and the key of the line that each prints."""

    title: str
    key: str  # more is better for images_per_second, less for seconds and milliseconds
    ours: Sequence[str]
    peers: Mapping[str, Sequence[str]]
    goal: float
    busy: int = 0  # programs that keep a core each busy meanwhile

    def ratios(self, rounds: int) -> tuple[list[float], list[str]]:
        """Of each round: how many times the best peer ours is, and which that was."""
        with busy_programs(self.busy):
            results = in_rounds({"convolab": self.ours, **self.peers}, rounds)
        more_is_better = self.key == "images_per_second"
        values, best = [], []
        for number in range(rounds):
            peers = {name: results[name][number][self.key] for name in self.peers}
            best.append((max if more_is_better else min)(peers, key=peers.__getitem__))
            ratio = results["convolab"][number][self.key] / peers[best[-1]]
            values.append(ratio if more_is_better else 1 / ratio)
        return values, best


def script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / f"{name}.py"), *arguments]


def training_questions(data_dir: Path) -> list[Question]:
    """On CIFAR-10: a network, beside a busy program, and a study."""

    def train(title: str, network: str, goal: float, busy: int = 0, other: str = "skorch") -> Question:
        common = ["--data-dir", str(data_dir), "--network", network, "--steps", "40"]
        peers = {name: script("peers", name, *common) for name in ("tutorial", other)}
        return Question(title, "images_per_second", script("training", *common, "--ours", "fp32"), peers, goal, busy)

    trials = ["--data-dir", str(data_dir), "--trials", "4", "--limit", "4000"]
    return [
        train("training simple_convnet", "simple_convnet", 4.5),
        train("training simple_convnet beside a busy program", "simple_convnet", 1.0, busy=1),
        train("training shallow_net", "shallow_net", 12.0, other="tutorial_2_workers"),
        Question(
            "a study of four trials",
            "images_per_second",
            script("study", *trials, "--one", "convolab study"),
            {name: script("study", *trials, "--one", name) for name in ("ray tune", "optuna")},
            2.5,
        ),
    ]


def other_questions() -> list[Question]:
    """Those that need no data."""

    def inspect(title: str, part: str, peer: str, goal: float) -> Question:
        ours, theirs = (script("inspection", "--one", part, contender) for contender in ("convolab", peer))
        return Question(title, "seconds", ours, {peer: theirs}, goal)

    return [
        inspect("integrated gradients", "integrated_gradients", "captum at its best", 1.5),
        inspect("SmoothGrad", "smoothgrad", "captum at its best", 1.5),
        inspect("fooling six images", "fooling", "foolbox BIM", 2.0),
        inspect("dense map of a large image", "dense", "windows cropped one by one, at their best", 20.0),
        Question(
            "summary of ResNet-50",
            "milliseconds",
            script("summary", "--one", "convolab"),
            {name: script("summary", "--one", name) for name in ("torchinfo", "torchinfo on meta")},
            1.0,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help=f"put the ratios into {KEPT.name}")
    given = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    before = kept.get(processor(), {})
    questions = [*(training_questions(given.data_dir) if given.data_dir else []), *other_questions()]
    ratios, rows, start = {}, [], time.monotonic()
    for question in questions:
        print(f"{time.monotonic() - start:.0f} s: {question.title}", file=sys.stderr, flush=True)
        values, best = question.ratios(given.rounds)
        ratio = ratios[question.title] = median(values)
        print(f"    {ratio:.2f} x {best[-1]}", file=sys.stderr, flush=True)
        rows.append({
            "what": question.title,
            "best peer": " / ".join(dict.fromkeys(best)),
            "convolab is": f"{ratio:.2f} x",
            "range": f"{min(values):.2f} to {max(values):.2f}",
            "goal": f"{question.goal:g} x: {verdict(ratio >= question.goal)}",
            "before": change(before.get(question.title), ratio),
        })  # fmt: skip
    print(f"{processor()}; {given.rounds} rounds, {time.monotonic() - start:.0f} s\n\n{table(rows)}")
    if given.data_dir is None:
        print("\ntraining and studies are left out: give --data-dir, the folder that holds cifar-10-batches-py")
    if given.keep:
        kept[processor()] = before | {title: round(ratio, 2) for title, ratio in ratios.items()}
        KEPT.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"\nkept, by the kind of processor\n\n{table(rows_by_processor(kept, questions))}")


def rows_by_processor(kept: Mapping[str, Mapping[str, float]], questions: Sequence[Question]) -> list[dict[str, str]]:
    """A row for each question, with its ratio on each kind of processor."""
    return [
        {"what": question.title, "goal": f"{question.goal:g} x"}
        | {machine: f"{of[question.title]:.2f} x" if question.title in of else "" for machine, of in kept.items()}
        for question in questions
    ]


def change(before: float | None, now: float) -> str:
    """
    >>> change(2.0, 2.1), change(2.0, 1.8), change(None, 1.0)
    ('2.00 x, +5 %', '2.00 x, -10 % (!)', 'new')
    """
    if before is None:
        return "new"
    return f"{before:.2f} x, {now / before - 1:+.0%}".replace("%", " %") + (" (!)" if now < (1 - LOSS) * before else "")


if __name__ == "__main__":
    main()
