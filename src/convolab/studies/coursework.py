"""The course's second question as a study: every section with its arms, its curves and what it asks."""

from typing import Any, Literal

from convolab.core.errors import require, suggest
from convolab.data.catalog import DATASETS
from convolab.studies.study import Study

CourseworkBudget = Literal["quick", "full"]
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
    seeds: tuple[int, ...] = (0, 1, 2),
    sections: tuple[str, ...] = (),
) -> Study:
    """All sections, or `only` some, on a picture set.

    The budget `quick` trains on 10,000 pictures for 5 epochs, `full` on all of them for 10; left out, it is `full` for
    the embedded digits and `quick` for every other set. Raises LabError for an unknown section, with the nearest.

    >>> study = coursework(only=("residual",))
    >>> [trial.arm for trial in study.trials if trial.seed == 0]
    ['with', 'without']
    """
    for name in sections:
        require(
            name in COURSEWORK_SECTIONS, f"the coursework has no section '{name}': {suggest(name, COURSEWORK_SECTIONS)}"
        )
    is_quick = (budget or ("full" if data == "digits" else "quick")) == "quick"
    image_size = DATASETS[data].shape[1] if data in DATASETS else 32
    all_sections = build_sections(image_size, is_quick)
    chosen = {name: section for name, section in all_sections.items() if not sections or name in sections}
    if set(sections) == {"best-on-test"}:
        chosen = all_sections  # it is the best of all of them
    recipe: dict[str, Any] = {"data": {"name": data}, "training": {"epochs": 5 if is_quick else 10}}
    if is_quick:
        recipe["data"]["limit"] = min(10_000, DATASETS[data].num_train) if data in DATASETS else 10_000
        recipe["schedule"] = {"name": "step", "period": 3}
    return Study.parse(
        {
            "name": f"coursework-{data.removeprefix('folder:').strip('/').rpartition('/')[2]}",
            "title": f"Question 2 on {data}",
            "seeds": seeds,
            "recipe": recipe,
            "sections": chosen,
            "test_best": not sections or "best-on-test" in sections,
        }
    )


def build_sections(image_size: int, is_quick: bool) -> dict[str, Any]:
    """The sections for pictures of this side: crops and holes grow with it."""
    crop, cutout = f"crop:{max(1, image_size // 8)}", f"cutout:{max(2, image_size // 4)}"
    step_size = 3 if is_quick else 5
    return {
        "shallow-vs-conv": {
            "title": "A shallow net against a simple convnet, both with SGD",
            "arms": {"convnet": {}, "shallow": {"model.name": "shallow_net"}},
            "curves": ALL_CURVES,
            "contrasts": [contrast_entry("convnet", "shallow", metric) for metric in ("best_validation_accuracy", "final_train_loss")],
        },
        "batch-norm-sgd": {
            "title": "Batch norm with SGD at a rate of 0.001",
            "change": {"optimizer.lr": 1e-3},
            **batch_norm_arms(),
        },
        "batch-norm-adam": {
            "title": "Batch norm with Adam at a rate of 0.0001",
            "change": {"optimizer.name": "adam", "optimizer.lr": 1e-4},
            **batch_norm_arms(),
        },
        "overfit-one-batch": {
            "title": "Can each network learn one batch by heart?",
            "note": "One batch of 128 pictures is the whole training set here, so an epoch is one step. No augmentation, no decay of the weights, a constant rate; a run ends when it has reached 100 %.",
            "change": {
                "data.limit": 128,
                "data.validation": 0,
                "data.augment": [],
                "optimizer.weight_decay": 0,
                "schedule.name": "constant",
                "training.batch_size": 128,
                "training.epochs": 400,
                "training.goal": 1.0,
            },
            "arms": {"convnet": {}, "shallow": {"model.name": "shallow_net"}, "residual convnet": {"model.residual": True}},
            "curves": TRAINING_CURVES,
            "contrasts": [contrast_entry(arm, "shallow", "epochs_until_train_accuracy:1") for arm in ("convnet", "residual convnet")],
        },
        "residual": {
            "title": "Residual connections",
            "arms": {"with": {"model.residual": True}, "without": {}},
            "curves": ALL_CURVES,
            "contrasts": [contrast_entry("with", "without", metric) for metric in ("best_validation_accuracy", "final_train_loss")],
        },
        "transforms": {
            "title": "Random changes to the training pictures",
            "note": "The training accuracy of each epoch is taken on the pictures as changed, so a negative gap is no contradiction: the changed ones are harder.",
            "arms": {
                "none": {"data.augment": []},
                "crop + flip": {"data.augment": [crop, "flip"]},
                "crop + flip + cutout": {"data.augment": [crop, "flip", cutout]},
                "crop + flip + colour": {"data.augment": [crop, "flip", "colour"]},
                "crop + flip + mixup": {"data.augment": [crop, "flip", "mixup"]},
            },
            "curves": ALL_CURVES,
            "contrasts": [
                contrast_entry(arm, "none", "best_validation_accuracy")
                for arm in ("crop + flip", "crop + flip + cutout", "crop + flip + colour", "crop + flip + mixup")
            ],
            "metrics": ["final_gap", "final_validation_accuracy"],
        },
        "schedules": {
            "title": "Schedules of the learning rate",
            "arms": {
                "constant": {"schedule.name": "constant"},
                "step": {"schedule.name": "step", "schedule.period": step_size},
                "cosine": {"schedule.name": "cosine"},
                "one-cycle": {"schedule.name": "one_cycle"},
            },
            "curves": ALL_CURVES,
            "contrasts": [contrast_entry(arm, "constant", "best_validation_accuracy") for arm in ("step", "cosine", "one-cycle")],
        },
        "lr-sgd": {"title": "Learning rates of SGD", **grid_against_baseline("optimizer.lr", [0.3, 0.1, 0.03, 0.01, 0.003], "lr=0.01")},
        "lr-adam": {
            "title": "Learning rates of Adam",
            "change": {"optimizer.name": "adam"},
            **grid_against_baseline("optimizer.lr", [0.01, 0.003, 0.001, 0.0003, 0.0001], "lr=0.001"),
        },
        "gamma-step": {
            "title": f"The factor of a step schedule, applied every {step_size} epochs",
            "change": {"schedule.name": "step", "schedule.period": step_size},
            **grid_against_baseline("schedule.gamma", [1.0, 0.5, 0.2, 0.1, 0.01], "gamma=0.1"),
        },
    }  # fmt: skip


def contrast_entry(arm: str, baseline: str, metric: str) -> dict[str, str]:
    return {"arm": arm, "against": baseline, "metric": metric}


def batch_norm_arms() -> dict[str, Any]:
    """With and without, as the course asks: training loss and training accuracy against epochs."""
    return {
        "arms": {"with": {}, "without": {"model.batch_norm": False}},
        "curves": TRAINING_CURVES,
        "contrasts": [
            contrast_entry("with", "without", metric) for metric in ("final_train_loss", "final_train_accuracy")
        ],
    }


def grid_against_baseline(key: str, values: list[float], baseline: str) -> dict[str, Any]:
    """Values of one key, each held against the usual one; training and validation loss, as the course asks."""
    short_key = key.rpartition(".")[2]
    names = [f"{short_key}={value:g}" for value in values]
    return {
        "grid": {key: values},
        "curves": LOSS_CURVES,
        "contrasts": [contrast_entry(name, baseline, "final_validation_loss") for name in names if name != baseline],
    }
