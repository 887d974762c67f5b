"""The course's second question as a study: every section with its arms, its curves and its contrasts."""

from collections.abc import Mapping, Sequence
from typing import Literal

from convolab.core.errors import require, suggest
from convolab.core.types import Json
from convolab.data.catalog import DATASETS, short_name
from convolab.studies.study import Study

CourseworkBudget = Literal["quick", "full"]
SectionValues = dict[str, Json]  # a section as a study's file has it
QUICK_LIMIT = 10_000  # training images of the quick budget
LOSS_CURVES = ("train_loss", "validation_loss")
TRAINING_CURVES = ("train_loss", "train_accuracy")
ALL_CURVES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
COURSEWORK_SECTIONS = (
    "shallow-vs-conv", "batch-norm-sgd", "batch-norm-adam", "overfit-one-batch", "residual", "transforms", "schedules",
    "lr-sgd", "lr-adam", "gamma-step", "best-on-test",
)  # fmt: skip


def coursework(
    data: str = "digits",
    budget: CourseworkBudget | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sections: Sequence[str] = (),
) -> Study:
    """The coursework's study of a dataset.

    Args:
        data: a dataset's name, or one's own images, such as folder:PATH.
        budget: `quick` trains on 10,000 images for 5 epochs, `full` on all images for 10. Left out, it is `full` for
            the bundled digits and `quick` for every other dataset.
        seeds: of every arm.
        sections: some of COURSEWORK_SECTIONS; left out, all of them.

    Returns:
        The study, of which nothing is trained yet: `run_study` does that.

    Raises LabError for an unknown section, with the nearest, and for an unknown dataset.

    >>> study = coursework(sections=["residual"])
    >>> [trial.arm for trial in study.trials if trial.seed == 0]
    ['with', 'without']
    """
    for name in sections:
        known = COURSEWORK_SECTIONS
        require(name in known, f"the coursework has no section '{name}': {suggest(name, known)}")
    is_quick = (budget or ("full" if data == "digits" else "quick")) == "quick"
    image_size = DATASETS[data].shape[1] if data in DATASETS else 32
    chosen = build_sections(image_size, is_quick)
    if set(sections) - {"best-on-test"}:  # alone, best-on-test is the best of all sections
        chosen = {name: section for name, section in chosen.items() if name in sections}
    recipe: dict[str, Json] = {"data": {"name": data}, "training": {"epochs": 10}}
    if is_quick:
        limit = min(QUICK_LIMIT, DATASETS[data].num_train) if data in DATASETS else QUICK_LIMIT
        recipe = {
            "data": {"name": data, "limit": limit},
            "training": {"epochs": 5},
            "schedule": {"name": "step", "step_size": 3},
        }
    return Study.from_dict(
        {
            "name": f"coursework-{short_name(data)}",
            "title": f"Question 2 on {data}",
            "seeds": seeds,
            "recipe": recipe,
            "sections": chosen,
            "test_best": not sections or "best-on-test" in sections,
        }
    )


def build_sections(image_size: int, is_quick: bool) -> dict[str, SectionValues]:
    """The sections for square images of this size: crops and cutouts grow with it."""
    crop = f"crop:{max(1, image_size // 8)}"
    cutout = f"cutout:{max(2, image_size // 4)}"
    step_size = 3 if is_quick else 5
    augmented_arms = {
        "crop + flip": [crop, "flip"],
        "crop + flip + cutout": [crop, "flip", cutout],
        "crop + flip + color": [crop, "flip", "color"],
        "crop + flip + mixup": [crop, "flip", "mixup"],
    }
    return {
        "shallow-vs-conv": {
            "title": "A shallow net and a simple convnet, both with SGD",
            "arms": {"convnet": {}, "shallow": {"model.name": "shallow_net"}},
            "curves": ALL_CURVES,
            "contrasts": contrasts_with(
                "shallow",
                {"convnet": "convolution instead of one hidden layer"},
                "best_validation_accuracy",
                "final_train_loss",
            ),
        },
        "batch-norm-sgd": {
            "title": "Batch norm with SGD, learning rate 0.001",
            "overrides": {"optimizer.lr": 1e-3},
            **batch_norm_arms(),
        },
        "batch-norm-adam": {
            "title": "Batch norm with Adam, learning rate 0.0001",
            "overrides": {"optimizer.name": "adam", "optimizer.lr": 1e-4},
            **batch_norm_arms(),
        },
        "overfit-one-batch": {
            "title": "Can each network overfit a single batch?",
            "note": "The training set is one batch of 128 images, so an epoch is one step. No augmentation, no weight "
            "decay, a constant learning rate; a run ends at 100 % training accuracy.",
            "overrides": {
                "data.limit": 128,
                "data.validation": 0.0,
                "data.augment": [],
                "optimizer.weight_decay": 0.0,
                "schedule.name": "constant",
                "training.batch_size": 128,
                "training.epochs": 400,
                "training.goal": 1.0,
            },
            "arms": {
                "convnet": {},
                "shallow": {"model.name": "shallow_net"},
                "residual convnet": {"model.residual": True},
            },
            "curves": TRAINING_CURVES,
            "contrasts": contrasts_with(
                "shallow",
                {
                    "convnet": "convolution instead of one hidden layer",
                    "residual convnet": "convolution with residual connections instead of one hidden layer",
                },
                "epochs_to_train_accuracy:1",
            ),
        },
        "residual": {
            "title": "Residual connections",
            "arms": {"with": {"model.residual": True}, "without": {}},
            "curves": ALL_CURVES,
            "contrasts": contrasts_with(
                "without",
                {"with": "adding residual connections"},
                "best_validation_accuracy",
                "final_train_loss",
            ),
        },
        "transforms": {
            "title": "Data augmentation",
            "note": "Training accuracy is measured on the augmented images, which are harder, so a negative gap is no "
            "contradiction.",
            "arms": {
                "none": {"data.augment": []},
                **{name: {"data.augment": transforms} for name, transforms in augmented_arms.items()},
            },
            "curves": ALL_CURVES,
            "contrasts": contrasts_with(
                "none", {arm: f"augmentation by {arm}" for arm in augmented_arms}, "best_validation_accuracy"
            ),
            "metrics": ["final_gap", "final_validation_accuracy"],
        },
        "schedules": {
            "title": "Learning rate schedules",
            "arms": {
                "constant": {"schedule.name": "constant"},
                "step": {"schedule.name": "step", "schedule.step_size": step_size},
                "cosine": {"schedule.name": "cosine"},
                "one-cycle": {"schedule.name": "one_cycle"},
            },
            "curves": ALL_CURVES,
            "contrasts": contrasts_with(
                "constant",
                {arm: f"the {arm} schedule instead of a constant rate" for arm in ("step", "cosine", "one-cycle")},
                "best_validation_accuracy",
            ),
        },
        "lr-sgd": {
            "title": "Learning rate with SGD",
            **grid_with_baseline("optimizer.lr", "learning rate", [0.3, 0.1, 0.03, 0.01, 0.003], 0.01),
        },
        "lr-adam": {
            "title": "Learning rate with Adam",
            "overrides": {"optimizer.name": "adam"},
            **grid_with_baseline("optimizer.lr", "learning rate", [0.01, 0.003, 0.001, 0.0003, 0.0001], 0.001),
        },
        "gamma-step": {
            "title": f"The factor gamma of a step schedule, applied every {step_size} epochs",
            "overrides": {"schedule.name": "step", "schedule.step_size": step_size},
            **grid_with_baseline("schedule.gamma", "gamma", [1.0, 0.5, 0.2, 0.1, 0.01], 0.1),
        },
    }


def contrasts_with(baseline: str, subjects: Mapping[str, str], *metrics: str) -> list[Mapping[str, str]]:
    """Each arm compared with the baseline, by each metric; `subjects` say in words what each arm has."""
    return [
        {"arm": arm, "baseline": baseline, "metric": metric, "subject": subject}
        for metric in metrics
        for arm, subject in subjects.items()
    ]


def batch_norm_arms() -> SectionValues:
    """With and without batch norm, as the course asks: training loss and training accuracy against epochs."""
    return {
        "arms": {"with": {}, "without": {"model.batch_norm": False}},
        "curves": TRAINING_CURVES,
        "contrasts": contrasts_with("without", {"with": "batch norm"}, "final_train_loss", "final_train_accuracy"),
    }


def grid_with_baseline(key: str, words: str, values: Sequence[float], baseline: float) -> SectionValues:
    """Values of one key, each compared with the usual one; training and validation loss, as the course asks."""
    short_key = key.rpartition(".")[2]
    names = {value: f"{short_key}={value:g}" for value in values}
    others = {
        name: f"a {words} of {value:g} instead of {baseline:g}" for value, name in names.items() if value != baseline
    }
    return {
        "grid": {key: values},
        "curves": LOSS_CURVES,
        "contrasts": contrasts_with(names[baseline], others, "final_validation_loss"),
    }
