"""The course's second question as a study: every section with its arms, its curves and its contrasts.

Each section runs where its question has an answer. What that means was found by pilots on CIFAR-10, of one seed and ten epochs
each where no other number stands; they show where to look, and decide nothing:

- residual connections: with 3 layers they cost 1.8 percentage points, with 9 they gain 1.0, with 15 they gain 1.8;
- transforms: on a tenth of the images a wider convnet overfits (training 63 %, validation 48 % after ten of forty epochs), so
  that there is something to gain; trained on all images for ten epochs the small one underfits;
- schedules and gamma: at a rate of 0.1, where the best epoch of a constant one has 65.0 % and that of a one-cycle schedule 73.4 %;
- rates: with SGD 0.1 is best, with Adam 0.03, which is beyond what the course tries: its grid widens by itself;
- four stages of 32 to 256 channels reach 86 % on validation images in twelve epochs, five times the time of the small convnet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from convolab.core.errors import require, suggest
from convolab.core.streams import print_progress
from convolab.core.text import join_with_and
from convolab.core.types import Json, MessageCallback, python_values
from convolab.data.catalog import DATASETS, dataset_info, find_own_images, is_own_data, short_name
from convolab.studies.section import UNTIL_DECIDED, Section
from convolab.studies.study import Study

CourseworkBudget = Literal["quick", "full"]
SectionValues = dict[str, Json]  # a section as a study's file has it
QUICK_LIMIT = 10_000  # training images of the quick budget
BATCH_SIZE = 128  # a recipe's default
MAX_SEEDS = 8  # of an arm, where seeds are "until decided"
MANY_IMAGES = 5_000  # for training: from so many on a tenth is enough to validate on
SMALL_SIDE = 16  # pixels: an image this small is none of a scene, so that its mirror image is another thing
LOSS_CURVES = ("train_loss", "validation_loss")
TRAINING_CURVES = ("train_loss", "train_accuracy")
ALL_CURVES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
COURSEWORK_SECTIONS = (
    "shallow-vs-conv", "batch-norm-sgd", "batch-norm-adam", "overfit-one-batch", "residual", "transforms", "schedules",
    "lr-sgd", "lr-adam", "gamma-step", "wider-convnet", "best-on-test",
)  # fmt: skip


def coursework(
    data: str = "digits",
    budget: CourseworkBudget | None = None,
    *,
    seeds: Sequence[int] | None = None,
    sections: Sequence[str] = (),
    data_dir: Path | str | None = None,
    on_message: MessageCallback = print_progress,
) -> Study:
    """The coursework's study of a dataset.

    Args:
        data: a dataset's name, or one's own images, such as folder:PATH.
        budget: `quick` trains on 10,000 images (of one's own: on all) for 5 epochs, `full` on all images for 10. Left out,
            it is `full` for the bundled digits and `quick` for every other dataset.
        seeds: of every arm. Left out, they are "until decided", at most 8, with `full`; 0, 1 and 2 with `quick`.
        sections: some of COURSEWORK_SECTIONS; left out, all of them.
        data_dir: where the path of one's own images starts, see `load`: they are counted, because few of them fill no batch
            of 128.
        on_message: called with a line about sections that are left out because these images are too few.

    Returns:
        The study, of which nothing is trained yet: `run_study` does that.

    Raises LabError for an unknown section, with the nearest, for an unknown dataset, and for images of one's own that are
    not there, or too few for any section.

    >>> study = coursework(sections=["residual"])
    >>> [trial.arm for trial in study.trials if trial.seed == 0][:2]
    ['3 layers', '3 layers, residual']
    """
    seeds = python_values(seeds)
    for name in sections:
        known = COURSEWORK_SECTIONS
        require(name in known, f"the coursework has no section '{name}': {suggest(name, known)}")
    is_quick = (budget or ("full" if data == "digits" else "quick")) == "quick"
    images = count_images(data, Path(data_dir) if data_dir is not None else None)
    chosen = build_sections(images, is_quick)
    if set(sections) - {"best-on-test"}:  # alone, best-on-test is the best of all sections
        chosen = {name: section for name, section in chosen.items() if name in sections}
    if left_out := [name for name, section in chosen.items() if not images.can_validate(section)]:
        why = "no class would have two training images, of which one is held out for validation"
        require(len(left_out) < len(chosen), f"the coursework cannot be done with {data}: {why}: add images")
        on_message(f"the coursework with {data} is without {join_with_and(left_out)}, where {why}")
        chosen = {name: section for name, section in chosen.items() if name not in left_out}
    values: dict[str, Json] = {"name": data}
    if images.count < MANY_IMAGES and not images.has_validation:
        values["validation"] = 0.3  # of a tenth of so few, one image would be most of a percentage point
    if is_quick and data in DATASETS:
        values["limit"] = min(QUICK_LIMIT, images.count)
    training = {"epochs": 5 if is_quick else 10}
    if (batch_size := fitting_batch(images.count // 2, BATCH_SIZE)) < BATCH_SIZE:
        training["batch_size"] = batch_size
    recipe: dict[str, Json] = {"data": values, "training": training}
    if is_quick:
        recipe["schedule"] = {"name": "step", "step_size": 3}
    return Study.from_dict(
        {
            "name": f"coursework-{short_name(data)}",
            "title": f"Question 2 on {data}",
            "seeds": seeds or ([0, 1, 2] if is_quick else UNTIL_DECIDED),
            "max_seeds": MAX_SEEDS,
            "recipe": recipe,
            "sections": chosen,
            "test_best": not sections or "best-on-test" in sections,
        }
    )


@dataclass(frozen=True)
class TrainingImages:
    """What the sections need to know of a dataset's images for training."""

    side: int  # the shorter one, in pixels
    count: int
    largest_class: int  # images of it
    has_validation: bool = False  # of the dataset's own; else a part of these is held out

    def can_validate(self, section: SectionValues) -> bool:
        """Whether a section has images to validate on, if it wants any: of a class with one none is held out."""
        overrides = cast("Mapping[str, float]", section.get("overrides", {}))
        share = overrides.get("data.limit", self.count) / self.count
        return self.has_validation or overrides.get("data.validation") == 0 or share * self.largest_class >= 2


def count_images(data: str, data_dir: Path | None) -> TrainingImages:
    """Of a published dataset what the catalog says; one's own images are listed."""
    if not is_own_data(data):
        info = dataset_info(data)
        return TrainingImages(info.shape[1], info.num_train, info.num_train // info.num_classes)
    source = find_own_images(data, data_dir)
    source.require_usable()
    counts = source.class_counts()
    return TrainingImages(min(source.size), sum(counts["train"]), max(counts["train"]), "validation" in counts)


def fitting_batch(count: int, most: int) -> int:
    """A batch that so many images fill: of `most`, or of the next lower power of two, which unreadable ones may leave full.

    >>> fitting_batch(1000, 128), fitting_batch(128, 128), fitting_batch(100, 128), fitting_batch(1, 128)
    (128, 128, 64, 1)
    """
    return min(most, 1 << (max(count, 1).bit_length() - 1))


def build_sections(images: TrainingImages, is_quick: bool) -> dict[str, SectionValues]:
    """The sections for these images: crops and cutouts grow with their size."""
    step_size = 3 if is_quick else 5
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
        "batch-norm-sgd": batch_norm_by_rate(),
        "batch-norm-adam": {
            "title": "Batch norm with Adam, learning rate 0.0001",
            "overrides": {"optimizer.name": "adam", "optimizer.lr": 1e-4},
            "arms": {"with": {}, "without": {"model.batch_norm": False}},
            "curves": TRAINING_CURVES,
            "contrasts": contrasts_with("without", {"with": "batch norm"}, "final_train_loss", "final_train_accuracy"),
        },
        "overfit-one-batch": single_batch(images),
        "residual": residual_by_depth(),
        "transforms": transforms(images, is_quick),
        "schedules": {
            "title": "Learning rate schedules",
            "note": "At a learning rate of 0.1, which is good to begin with and too high to end with.",
            "overrides": {"optimizer.lr": 0.1},
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
            **grid_with_baseline("optimizer.lr", "learning rate", [0.3, 0.1, 0.03, 0.01, 0.003], 0.01, widen=2),
        },
        "lr-adam": {
            "title": "Learning rate with Adam",
            "overrides": {"optimizer.name": "adam"},
            **grid_with_baseline("optimizer.lr", "learning rate", [0.01, 0.003, 0.001, 0.0003, 0.0001], 0.001, widen=2),
        },
        "gamma-step": {
            "title": f"The factor gamma of a step schedule, applied every {step_size} epochs",
            "note": "At a learning rate of 0.1, as the schedules.",
            "overrides": {"optimizer.lr": 0.1, "schedule.name": "step", "schedule.step_size": step_size},
            **grid_with_baseline("schedule.gamma", "gamma", [1.0, 0.5, 0.2, 0.1, 0.01], 0.1),
        },
        "wider-convnet": {
            "title": "A convnet that learns the images: wider, deeper, longer",
            "note": "It takes about four times as long to train as the simple convnet.",
            "arms": {
                "convnet": {},
                "wider": {
                    "model.channels": [32, 64, 128, 256],
                    "optimizer.lr": 0.2,
                    "schedule.name": "one_cycle",
                    "training.epochs": 6 if is_quick else 11,
                    "data.augment": transform_arms(images.side)[0][1],
                },
            },
            "curves": ALL_CURVES,
            "contrasts": contrasts_with(
                "convnet",
                {"wider": "using four stages of 32 to 256 channels, a one-cycle schedule and transforms"},
                "best_validation_accuracy",
            ),
        },
    }


def batch_norm_by_rate() -> SectionValues:
    """With and without batch norm at the course's low rate, and what it gains there and at a high one."""
    without = {"model.batch_norm": False}
    high = {"optimizer.lr": 0.1}
    at_low_rate = contrasts_with(
        "without, rate 0.001",
        {"with, rate 0.001": "batch norm at a rate of 0.001"},
        "final_train_loss",
        "final_train_accuracy",
    )
    at_high_rate = contrasts_with(
        "without, rate 0.1", {"with, rate 0.1": "batch norm at a rate of 0.1"}, "final_train_loss"
    )
    return {
        "title": "Batch norm with SGD, learning rate 0.001, and 0.1",
        "overrides": {"optimizer.lr": 1e-3},
        "arms": {
            "with, rate 0.001": {}, "without, rate 0.001": without,
            "with, rate 0.1": high, "without, rate 0.1": {**high, **without},
        },
        "curves": TRAINING_CURVES,
        "contrasts": [
            *at_low_rate,
            *at_high_rate,
            {**at_low_rate[0], "subject": "batch norm", "interaction": ["with, rate 0.1", "without, rate 0.1"]},
        ],
    }  # fmt: skip


def single_batch(images: TrainingImages) -> SectionValues:
    """One batch is all that is trained on: of 128 images, if there are so many."""
    batch_size = fitting_batch(images.count, BATCH_SIZE)
    return {
        "title": "Can each network overfit a single batch?",
        "note": f"The training set is one batch of {batch_size} images, so an epoch is one step. No augmentation, no weight "
        "decay, a constant learning rate; a run ends at 100 % training accuracy.",
        "overrides": {
            "data.limit": batch_size,
            **({} if images.has_validation else {"data.validation": 0.0}),
            "data.augment": [],
            "optimizer.weight_decay": 0.0,
            "schedule.name": "constant",
            "training.batch_size": batch_size,
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
    }


def residual_by_depth() -> SectionValues:
    """The same convnet with 3, 9 and 15 layers, with and without residual connections, and how much more they do there.

    The deep ones take ten times as long, so all are trained for five epochs only.
    """
    depths = {f"{3 * depth} layers": {} if depth == 1 else {"model.depth": depth} for depth in (1, 3, 5)}
    arms: dict[str, Json] = {}
    effects: list[dict[str, Json]] = []
    for name, depth in depths.items():
        arms[name] = depth
        arms[f"{name}, residual"] = {**depth, "model.residual": True}
        subject = f"adding residual connections to {name}"
        effects += contrasts_with(name, {f"{name}, residual": subject}, "best_validation_accuracy")
    shallowest, *_, deepest = effects
    return {
        "title": "Residual connections by depth",
        "note": "Each stage has one, three or five convolutions, and the shortcut of a stage bridges all of them.",
        "overrides": {"training.epochs": 5, "schedule.step_size": 3},
        "arms": arms,
        "curves": ALL_CURVES,
        "contrasts": [
            *effects,
            {
                **deepest,
                "subject": "adding residual connections",
                "interaction": [shallowest["arm"], shallowest["baseline"]],
            },
            {**deepest, "metric": "final_train_loss"},
        ],
    }


def transforms(images: TrainingImages, is_quick: bool) -> SectionValues:
    """Transforms where there is something to gain: a wider convnet on a tenth of the images, for four times as many epochs."""
    arms = transform_arms(images.side)
    limit = max(1000, min(images.count, QUICK_LIMIT if is_quick else images.count) // 10)
    return {
        "title": "Data augmentation",
        "note": "A wider convnet on few of the images, for forty epochs, which it can overfit. Training accuracy is "
        "measured on the augmented images, which are harder, so a negative gap is no contradiction.",
        "overrides": {
            **({"data.limit": limit} if limit < images.count else {}),
            "model.channels": [32, 64, 128],
            "optimizer.lr": 0.1,
            "schedule.name": "one_cycle",
            "training.epochs": 40,
            "training.batch_size": fitting_batch(min(limit, images.count) // 2, 64),
        },
        "arms": {"none": {"data.augment": []}, **{name: {"data.augment": entries} for name, entries in arms}},
        "curves": ALL_CURVES,
        "contrasts": contrasts_with(
            "none", {name: f"augmentation by {name}" for name, _ in arms}, "best_validation_accuracy"
        ),
        "metrics": ["final_gap", "final_validation_accuracy"],
    }


def transform_arms(image_size: int) -> list[tuple[str, list[str]]]:
    """The transforms that are tried, the usual ones first. Small images, such as digits, are not flipped.

    >>> transform_arms(32)[0], transform_arms(8)[1]
    (('crop + flip', ['crop:4', 'flip']), ('crop + cutout', ['crop:1', 'cutout:2']))
    """
    is_small = image_size <= SMALL_SIDE
    crop = f"crop:{max(1, image_size // 8)}"
    name, usual = ("crop", [crop]) if is_small else ("crop + flip", [crop, "flip"])
    further = {"cutout": f"cutout:{max(2, image_size // 4)}", "color": "color", "mixup": "mixup"}
    return [(name, usual), *((f"{name} + {word}", [*usual, entry]) for word, entry in further.items())]


def contrasts_with(baseline: str, subjects: Mapping[str, str], *metrics: str) -> list[dict[str, Json]]:
    """Each arm compared with the baseline, by each metric; `subjects` say in words what each arm has."""
    return [
        {"arm": arm, "baseline": baseline, "metric": metric, "subject": subject}
        for metric in metrics
        for arm, subject in subjects.items()
    ]


def grid_with_baseline(key: str, words: str, values: Sequence[float], baseline: float, widen: int = 0) -> SectionValues:
    """Values of one key, each compared with the usual one, and where the optimum is; both losses, as the course asks."""
    short_key = key.rpartition(".")[2]
    section: SectionValues = {"grid": {key: values}, "widen": widen, "curves": LOSS_CURVES}
    metric = "final_validation_loss"
    trend = {"trend": key, "metric": metric, "subject": f"taking a {words} from the middle of those tried"}
    possible = Section.model_validate({**section, "contrasts": [trend]}).arm_overrides
    others = {
        name: f"a {words} of {overrides[key]:g} instead of {baseline:g}"
        for name, overrides in possible.items()
        if overrides[key] != baseline
    }
    return {**section, "contrasts": [*contrasts_with(f"{short_key}={baseline:g}", others, metric), trend]}
