"""A study nobody trained: histories from a formula, so that every kind of verdict, curve and failure is on its report."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from convolab.core.stats import wilson_interval
from convolab.studies.analyze import analyze_study, make_best_on_test, select_best
from convolab.studies.results import SectionResult, StudyResult, TrialResult
from convolab.studies.study import Study, Trial
from convolab.training.trainer import EpochMetrics

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EVIL = "crop + flip <!--<script>alert(1)<b>&'x'"

STUDY: dict[str, Any] = {
    "name": "made-up",
    "title": "Question 2, made up",
    "seeds": [0, 1, 2],
    "recipe": {"data": {"name": "cifar10"}, "model": {"name": "simple_convnet"}, "training": {"epochs": 12}},
    "test_best": True,
    "sections": {
        "batch-norm-sgd": {
            "title": "Batch norm with SGD",
            "note": "SGD with learning rate 1e-3, with and without batch norm: it should train faster with.",
            "arms": {"with batch norm": {"model.batch_norm": True}, "without": {"model.batch_norm": False}},
            "curves": ["train_loss", "train_accuracy"],
            "contrasts": [
                {"arm": "with batch norm", "baseline": "without", "metric": "final_train_loss"},
                {"arm": "with batch norm", "baseline": "without", "metric": "epochs_to_validation_accuracy:0.6"},
                {"arm": "without", "baseline": "with batch norm", "metric": "best_validation_accuracy"},
            ],
        },
        "transforms": {
            "title": "Augmentations",
            "note": "Crop and flip first, then cutout and color on top; mixup alone.",
            "arms": {
                "none": {"data.augment": []},
                EVIL: {"data.augment": ["flip", "crop:2"]},
                "+ cutout": {"data.augment": ["flip", "crop:2", "cutout:8"]},
                "+ color": {"data.augment": ["flip", "crop:2", "cutout:8", "color:0.2"]},
                "mixup": {"data.augment": ["mixup:0.2"]},
            },
            "curves": ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"],
            "contrasts": [
                {"arm": EVIL, "baseline": "none", "metric": "final_gap"},
                {"arm": "mixup", "baseline": "none"},
            ],
        },
        "lr-sgd": {
            "title": "Learning rates of SGD",
            "grid": {"optimizer.lr": [3.0, 1.0, 0.1, 0.01, 0.001]},
            "curves": ["train_loss", "validation_loss"],
            "contrasts": [{"arm": "lr=0.1", "baseline": "lr=0.01"}, {"arm": "lr=3", "baseline": "lr=0.1"}],
        },
        "overfit-one-batch": {
            "title": "Overfit one batch",
            "overrides": {"data.limit": 128, "data.validation": 0.0, "training.batch_size": 128, "training.epochs": 40},
            "arms": {"simple_convnet": {}},
            "seeds": [0],
            "curves": ["train_loss", "train_accuracy"],
        },
    },
}


def history(
    recipe_key: str, epochs: int, level: float, speed: float, validation: bool, seed: int, ends: int | None = None
) -> tuple[EpochMetrics, ...]:
    """Curves that fall to `level` nats; with `ends`, they blow up and end after that epoch."""
    chance = np.random.default_rng([seed, int(recipe_key, 16)])
    level = level * math.exp(0.04 * chance.standard_normal())
    lines = []
    for epoch in range(1, (ends or epochs) + 1):
        loss = level + (2.3 - level) * math.exp(-speed * epoch) * (1 + 0.05 * chance.standard_normal())
        if ends and epoch >= ends - 1:
            loss *= 30.0 ** (epoch - ends + 2)
        held = 0.25 + 0.9 * loss + 0.02 * epoch * speed + 0.02 * chance.standard_normal()
        share = max(0.1, min(1.0, 1.02 * math.exp(-0.38 * loss)))
        held_share = max(0.1, 0.95 * math.exp(-0.4 * held))
        lines.append(
            EpochMetrics(
                epoch,
                loss,
                share,
                held if validation else None,
                held_share if validation else None,
                0.01,
                7.5,
                6000.0,
                "running",
            )
        )
    return tuple(lines)


# arm -> (level in nats, speed), and the epoch after which seed n's curve ends in NaN
SHAPES = {
    "with batch norm": (0.7, 0.5),
    "without": (1.1, 0.2),
    "none": (0.3, 0.5),
    EVIL: (0.6, 0.3),
    "+ cutout": (0.65, 0.3),
    "+ color": (0.8, 0.3),
}
SHAPES |= {
    "mixup": (0.3, 0.48),
    "lr=3": (2.0, 0.3),
    "lr=1": (0.9, 0.6),
    "lr=0.1": (0.5, 0.5),
    "lr=0.01": (0.9, 0.3),
    "lr=0.001": (1.6, 0.1),
}
SHAPES |= {"simple_convnet": (1e-4, 0.35)}
ENDS = {("lr=3", 0): 3, ("lr=3", 1): 2, ("lr=3", 2): 4, ("lr=1", 1): 6}


def outcome(trial: Trial, level: float = 1.0, speed: float = 0.3, ends: int | None = None) -> TrialResult:
    recipe = trial.recipe
    lines = history(recipe.key, recipe.training.epochs, level, speed, recipe.data.validation > 0, trial.seed, ends)
    summary = {
        "hardware": {"processor": "Abacus 9000", "cores": 2, "system": "Linux-6", "python": "3.12.1"},
        "versions": {"convolab": "0.1.0", "torch": "2.14.0"},
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "train_seconds": sum(line.train_seconds for line in lines),
    }
    reason = f"the loss became NaN in epoch {ends + 1}: try a smaller optimizer.lr" if ends else None
    return TrialResult(trial, "diverged" if ends else "finished", lines, reason, Path("runs") / recipe.key, summary)


@cache
def made_up(evil: bool = True) -> StudyResult:
    """Four sections and a test. Without `evil`, with names that are fit to be looked at."""
    text = repr(STUDY) if evil else repr(STUDY).replace(repr(EVIL), "'crop + flip'")
    study = Study.from_dict(eval(text))
    shapes = {name if evil or name != EVIL else "crop + flip": shape for name, shape in SHAPES.items()}
    outcomes = [outcome(trial, *shapes[trial.arm], ENDS.get((trial.arm, trial.seed))) for trial in study.trials]
    lost = next(i for i, o in enumerate(outcomes) if o.trial.arm == "+ color" and o.trial.seed == 2)
    outcomes[lost] = replace(outcomes[lost], status="failed", history=(), reason="out of memory, twice", summary=None)
    notes = ("transforms, + color, seed 2: failed twice: out of memory",)
    return StudyResult(
        study, analyze_study(study, outcomes), make_best_on_test(select_best(outcomes), outcomes, 5000, record()), notes
    )


def made_up_section(name: str) -> SectionResult:
    """A section of the study without `evil`."""
    return next(section for section in made_up(False).sections if section.name == name)


def record() -> dict[str, Any]:
    """A test of ten classes, 1,000 images each."""
    chance = np.random.default_rng(0)
    confusion = np.stack(
        [chance.multinomial(1000, chance.dirichlet([80 if i == j else 3 for j in range(10)])) for i in range(10)]
    )
    correct = int(confusion.trace())
    return {
        "accuracy": correct / 10_000,
        "interval": list(wilson_interval(correct, 10_000)),
        "correct": correct,
        "count": 10_000,
        "loss": 0.9,
        "per_class": {name: int(confusion[i, i]) / 1000 for i, name in enumerate(CLASSES)},
        "confusion": confusion.tolist(),
        "epoch": 11,
        "tested": "2026-01-01T12:00:00+00:00",
    }


@cache
def thousand(sections: int = 10, arms: int = 33, seeds: int = 3, epochs: int = 10) -> StudyResult:
    """About 1,000 runs, no two alike."""
    values = {
        "name": "thousand",
        "seeds": list(range(seeds)),
        "recipe": {"training": {"epochs": epochs}},
        "sections": {
            f"section {s}": {
                "overrides": {"optimizer.weight_decay": s / 1000},
                "grid": {"optimizer.lr": [round(0.3 * 0.8**i, 6) for i in range(arms)]},
                "curves": ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"],
                "contrasts": [
                    {"arm": "lr=0.3", "baseline": "lr=0.24"},
                    {"arm": "lr=0.192", "baseline": "lr=0.24", "metric": "final_train_loss"},
                ],
            }
            for s in range(sections)
        },
    }
    study = Study.from_dict(values)
    levels = {arm: 0.5 + abs(i - arms / 2) / arms for i, arm in enumerate(study.sections["section 0"].arm_overrides)}
    outcomes = [
        outcome(trial, levels[trial.arm], 0.4, 4 if trial.arm == "lr=0.3" and trial.seed == 1 else None)
        for trial in study.trials
    ]
    return StudyResult(
        study, analyze_study(study, outcomes), make_best_on_test(select_best(outcomes), outcomes, 5000, record())
    )
