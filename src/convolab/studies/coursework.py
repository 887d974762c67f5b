"""The course's second question as a study: every section with its arms, its curves and what it asks."""

from typing import Any, Literal

from convolab.core.errors import nearest, need
from convolab.data.catalog import SOURCES
from convolab.studies.study import Study

Budget = Literal["quick", "full"]
LOSSES = ("train_loss", "validation_loss")
TRAINING = ("train_loss", "train_accuracy")
ALL = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
SECTIONS = (
    "shallow-vs-conv", "batch-norm-sgd", "batch-norm-adam", "overfit-one-batch", "residual", "transforms", "schedules",
    "lr-sgd", "lr-adam", "gamma-step", "best-on-test",
)  # fmt: skip


def coursework(
    data: str = "digits",
    budget: Budget | None = None,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    only: tuple[str, ...] = (),
) -> Study:
    """All sections, or `only` some, on a picture set.

    The budget `quick` trains on 10,000 pictures for 5 epochs, `full` on all of them for 10; left out, it is `full` for
    the embedded digits and `quick` for every other set. Raises LabError for an unknown section, with the nearest.

    >>> study = coursework(only=("residual",))
    >>> [trial.arm for trial in study.trials if trial.seed == 0]
    ['with', 'without']
    """
    for name in only:
        need(name in SECTIONS, f"the coursework has no section '{name}': {nearest(name, SECTIONS)}")
    quick = (budget or ("full" if data == "digits" else "quick")) == "quick"
    side = SOURCES[data].shape[1] if data in SOURCES else 32
    sections = written(side, quick)
    chosen = {name: section for name, section in sections.items() if not only or name in only}
    if set(only) == {"best-on-test"}:
        chosen = sections  # it is the best of all of them
    recipe: dict[str, Any] = {"data": {"name": data}, "training": {"epochs": 5 if quick else 10}}
    if quick:
        recipe["data"]["limit"] = min(10_000, SOURCES[data].train) if data in SOURCES else 10_000
        recipe["schedule"] = {"name": "step", "period": 3}
    return Study.parse(
        {
            "name": f"coursework-{data.removeprefix('folder:').strip('/').rpartition('/')[2]}",
            "title": f"Question 2 on {data}",
            "seeds": seeds,
            "recipe": recipe,
            "sections": chosen,
            "test_best": not only or "best-on-test" in only,
        }
    )


def written(side: int, quick: bool) -> dict[str, Any]:
    """The sections for pictures of this side: crops and holes grow with it."""
    crop, cutout = f"crop:{max(1, side // 8)}", f"cutout:{max(2, side // 4)}"
    period = 3 if quick else 5
    return {
        "shallow-vs-conv": {
            "title": "A shallow net against a simple convnet, both with SGD",
            "arms": {"convnet": {}, "shallow": {"model.name": "shallow_net"}},
            "curves": ALL,
            "contrasts": [against("convnet", "shallow", metric) for metric in ("best_validation_accuracy", "final_train_loss")],
        },
        "batch-norm-sgd": {
            "title": "Batch norm with SGD at a rate of 0.001",
            "change": {"optimizer.lr": 1e-3},
            **batch_norm(),
        },
        "batch-norm-adam": {
            "title": "Batch norm with Adam at a rate of 0.0001",
            "change": {"optimizer.name": "adam", "optimizer.lr": 1e-4},
            **batch_norm(),
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
            "curves": TRAINING,
            "contrasts": [against(arm, "shallow", "epochs_until_train_accuracy:1") for arm in ("convnet", "residual convnet")],
        },
        "residual": {
            "title": "Residual connections",
            "arms": {"with": {"model.residual": True}, "without": {}},
            "curves": ALL,
            "contrasts": [against("with", "without", metric) for metric in ("best_validation_accuracy", "final_train_loss")],
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
            "curves": ALL,
            "contrasts": [
                against(arm, "none", "best_validation_accuracy")
                for arm in ("crop + flip", "crop + flip + cutout", "crop + flip + colour", "crop + flip + mixup")
            ],
            "metrics": ["final_gap", "final_validation_accuracy"],
        },
        "schedules": {
            "title": "Schedules of the learning rate",
            "arms": {
                "constant": {"schedule.name": "constant"},
                "step": {"schedule.name": "step", "schedule.period": period},
                "cosine": {"schedule.name": "cosine"},
                "one-cycle": {"schedule.name": "one_cycle"},
            },
            "curves": ALL,
            "contrasts": [against(arm, "constant", "best_validation_accuracy") for arm in ("step", "cosine", "one-cycle")],
        },
        "lr-sgd": {"title": "Learning rates of SGD", **rates("optimizer.lr", [0.3, 0.1, 0.03, 0.01, 0.003], "lr=0.01")},
        "lr-adam": {
            "title": "Learning rates of Adam",
            "change": {"optimizer.name": "adam"},
            **rates("optimizer.lr", [0.01, 0.003, 0.001, 0.0003, 0.0001], "lr=0.001"),
        },
        "gamma-step": {
            "title": f"The factor of a step schedule, applied every {period} epochs",
            "change": {"schedule.name": "step", "schedule.period": period},
            **rates("schedule.gamma", [1.0, 0.5, 0.2, 0.1, 0.01], "gamma=0.1"),
        },
    }  # fmt: skip


def against(arm: str, other: str, metric: str) -> dict[str, str]:
    return {"arm": arm, "against": other, "metric": metric}


def batch_norm() -> dict[str, Any]:
    """With and without, as the course asks: training loss and training accuracy against epochs."""
    return {
        "arms": {"with": {}, "without": {"model.batch_norm": False}},
        "curves": TRAINING,
        "contrasts": [against("with", "without", metric) for metric in ("final_train_loss", "final_train_accuracy")],
    }


def rates(key: str, values: list[float], usual: str) -> dict[str, Any]:
    """Values of one key, each held against the usual one; training and validation loss, as the course asks."""
    end = key.rpartition(".")[2]
    names = [f"{end}={value:g}" for value in values]
    return {
        "grid": {key: values},
        "curves": LOSSES,
        "contrasts": [against(name, usual, "final_validation_loss") for name in names if name != usual],
    }
