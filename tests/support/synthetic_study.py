"""A synthetic study, without training: a formula gives its histories, and its report has every kind of verdict, curve and
failure.
"""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from convolab.core.stats import wilson_interval
from convolab.studies.analyze import analyze_study
from convolab.studies.best_on_test import make_best_on_test, select_best
from convolab.studies.results import SectionResult, StudyResult, TrialResult
from convolab.studies.study import Study, Trial
from convolab.training.history import EpochMetrics
from convolab.training.run_records import EvaluationRecord

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPECIAL_NAME = "crop + flip <!--<script>alert(1)<b>&'x'"

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
                SPECIAL_NAME: {"data.augment": ["flip", "crop:2"]},
                "+ cutout": {"data.augment": ["flip", "crop:2", "cutout:8"]},
                "+ color": {"data.augment": ["flip", "crop:2", "cutout:8", "color:0.2"]},
                "mixup": {"data.augment": ["mixup:0.2"]},
            },
            "curves": ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"],
            "contrasts": [
                {"arm": SPECIAL_NAME, "baseline": "none", "metric": "final_gap"},
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


def synthetic_history(
    recipe_key: str,
    epochs: int,
    final_loss: float,
    decay_rate: float,
    validation: bool,
    seed: int,
    last_epoch: int | None = None,
) -> tuple[EpochMetrics, ...]:
    """Curves that fall to `final_loss` nats; with `last_epoch`, they diverge and end after that epoch."""
    rng = np.random.default_rng([seed, int(recipe_key, 16)])
    final_loss = final_loss * math.exp(0.04 * rng.standard_normal())
    history = []
    for epoch in range(1, (last_epoch or epochs) + 1):
        loss = final_loss + (2.3 - final_loss) * math.exp(-decay_rate * epoch) * (1 + 0.05 * rng.standard_normal())
        if last_epoch and epoch >= last_epoch - 1:
            loss *= 30.0 ** (epoch - last_epoch + 2)
        validation_loss = 0.25 + 0.9 * loss + 0.02 * epoch * decay_rate + 0.02 * rng.standard_normal()
        accuracy = max(0.1, min(1.0, 1.02 * math.exp(-0.38 * loss)))
        validation_accuracy = max(0.1, 0.95 * math.exp(-0.4 * validation_loss))
        history.append(
            EpochMetrics(
                epoch,
                loss,
                accuracy,
                validation_loss if validation else None,
                validation_accuracy if validation else None,
                0.01,
                7.5,
                6000.0,
                "running",
            )
        )
    return tuple(history)


# arm -> (final loss in nats, decay rate); (arm, seed) -> the epoch after which the loss is NaN
SHAPES = {
    "with batch norm": (0.7, 0.5),
    "without": (1.1, 0.2),
    "none": (0.3, 0.5),
    SPECIAL_NAME: (0.6, 0.3),
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
LAST_EPOCHS = {("lr=3", 0): 3, ("lr=3", 1): 2, ("lr=3", 2): 4, ("lr=1", 1): 6}


def synthetic_result(
    trial: Trial, final_loss: float = 1.0, decay_rate: float = 0.3, last_epoch: int | None = None
) -> TrialResult:
    recipe = trial.recipe
    history = synthetic_history(
        recipe.key, recipe.training.epochs, final_loss, decay_rate, recipe.data.validation > 0, trial.seed, last_epoch
    )
    summary = {
        "hardware": {"processor": "Abacus 9000", "cores": 2, "system": "Linux-6", "python": "3.12.1"},
        "versions": {"convolab": "0.1.0", "torch": "2.14.0"},
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "train_seconds": sum(epoch.train_seconds for epoch in history),
    }
    reason = f"the loss became NaN in epoch {last_epoch + 1}: try a smaller optimizer.lr" if last_epoch else None
    return TrialResult(
        trial, "diverged" if last_epoch else "finished", history, reason, Path("runs") / recipe.key, summary
    )


@cache
def synthetic_study(special_name: bool = True) -> StudyResult:
    """Four sections and a test of the best run. `special_name`: one arm has a name that must be escaped in HTML."""
    text = repr(STUDY) if special_name else repr(STUDY).replace(repr(SPECIAL_NAME), "'crop + flip'")
    study = Study.from_dict(eval(text))
    shapes = {name if special_name or name != SPECIAL_NAME else "crop + flip": shape for name, shape in SHAPES.items()}
    results = [
        synthetic_result(trial, *shapes[trial.arm], LAST_EPOCHS.get((trial.arm, trial.seed))) for trial in study.trials
    ]
    failed = next(i for i, result in enumerate(results) if (result.trial.arm, result.trial.seed) == ("+ color", 2))
    results[failed] = replace(results[failed], status="failed", history=(), reason="out of memory, twice", summary=None)
    notes = ("transforms, + color, seed 2: failed twice: out of memory",)
    return StudyResult(
        study,
        analyze_study(study, results),
        make_best_on_test(select_best(results), results, 5000, synthetic_test_result()),
        notes,
    )


def synthetic_section(name: str) -> SectionResult:
    """A section of the study without the special name."""
    return next(section for section in synthetic_study(False).sections if section.name == name)


def synthetic_test_result() -> EvaluationRecord:
    """The test result of ten classes, 1,000 images each."""
    rng = np.random.default_rng(0)
    confusion = np.stack(
        [rng.multinomial(1000, rng.dirichlet([80 if i == j else 3 for j in range(10)])) for i in range(10)]
    )
    correct = int(confusion.trace())
    return EvaluationRecord(
        accuracy=correct / 10_000,
        interval=list(wilson_interval(correct, 10_000)),
        correct=correct,
        count=10_000,
        loss=0.9,
        per_class={name: int(confusion[i, i]) / 1000 for i, name in enumerate(CLASSES)},
        confusion=confusion.tolist(),
        epoch=11,
        tested_at="2026-01-01T12:00:00+00:00",
    )


@cache
def study_of_1000_runs(sections: int = 10, arms: int = 33, seeds: int = 3, epochs: int = 10) -> StudyResult:
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
    final_losses = {
        arm: 0.5 + abs(i - arms / 2) / arms for i, arm in enumerate(study.sections["section 0"].arm_overrides)
    }
    results = [
        synthetic_result(trial, final_losses[trial.arm], 0.4, 4 if trial.arm == "lr=0.3" and trial.seed == 1 else None)
        for trial in study.trials
    ]
    return StudyResult(
        study,
        analyze_study(study, results),
        make_best_on_test(select_best(results), results, 5000, synthetic_test_result()),
    )
