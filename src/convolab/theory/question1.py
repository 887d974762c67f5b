"""Question 1 of the course as a sheet: answered by convolab or by a person, with every check that was run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from convolab.core.errors import require
from convolab.core.escape import shell_word
from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits
from convolab.theory import priors
from convolab.theory.answer_correlation import (
    DEFAULT_JACOBIAN_SIZE,
    answer_question_1b,
    question_1b,
    require_jacobian_size,
)
from convolab.theory.answer_layers import answer_question_1c, question_1c
from convolab.theory.answer_priors import answer_question_1a, question_1a
from convolab.theory.layers import LayerSizes
from convolab.theory.own_answers import QUESTION_PARTS, read_own_answers
from convolab.theory.priors import PriorsTrial
from convolab.theory.sheet import (
    AnswerSheet,
    ContentBlock,
    Heading,
    MarkedUpText,
    OpenItem,
    QuestionAnswer,
    Span,
    evidence_blocks,
)

TITLE = "Question 1: what a convolution assumes, its derivatives, and what it costs"
APPENDIX = "Appendix: what convolab checked"
MAX_NAME_LENGTH = 200  # characters
MAX_SEEDS = 100
EXPERIMENT_IMAGE_SIZE = 32  # pixels, of a folder's images

OwnAnswers = Mapping[str, tuple[ContentBlock, ...]]


@dataclass(frozen=True)
class SheetSettings:
    """Everything that decides a sheet, but the images. Raises LabError for a name, a size or a seed that makes no sense."""

    sizes: LayerSizes = field(default_factory=LayerSizes)
    jacobian_size: int = DEFAULT_JACOBIAN_SIZE
    data: str | None = "digits"  # None: without the experiment
    seed: int = 0
    seeds: int = 5
    name: str = ""
    date: str = ""
    answers_file: str | None = None  # of a person's own answers
    own_answers: OwnAnswers | None = None  # what it holds; None: convolab answers

    def __post_init__(self) -> None:
        require_jacobian_size(self.jacobian_size)
        for label, text in (("name", self.name), ("date", self.date)):
            require(
                text.isprintable() and len(text) <= MAX_NAME_LENGTH,
                f"the {label} {text[:40]!r} does not fit in the sheet's head: give one line of at most "
                f"{MAX_NAME_LENGTH} printable characters",
            )
        require(self.seed >= 0, f"seed {self.seed}: give at least 0")
        require(3 <= self.seeds <= MAX_SEEDS, f"{self.seeds} seeds: give 3 to {MAX_SEEDS}")

    @property
    def answered_parts(self) -> tuple[str, ...]:
        """The parts that convolab computes: all, or those that a person has answered, so that no other is given away."""
        return tuple(part for part in QUESTION_PARTS if self.own_answers is None or self.own_answers.get(part))

    @property
    def has_experiment(self) -> bool:
        """Whether networks are trained, for 1(a)."""
        return self.data is not None and "1(a)" in self.answered_parts


def answer_sheet(
    answers: Path | str | None = None,
    *,
    name: str = "",
    date: str = "",
    samples: int = 100,
    outputs: int | None = None,
    kernel_size: int = 3,
    maps: int = 10,
    jacobian_size: int = DEFAULT_JACOBIAN_SIZE,
    data: str | None = "digits",
    data_dir: Path | str | None = None,
    seed: int = 0,
    seeds: int = 5,
    on_trial_end: Callable[[PriorsTrial], None] | None = None,
) -> AnswerSheet:
    """Answer question 1 and check every answer.

    Args:
        answers: a Markdown file with a person's own answers, under the headings `## 1(a)`, `## 1(b)` and `## 1(c)`;
            what convolab computed for the parts that are answered follows as an appendix. None: convolab answers.
        name: of the person who hands the sheet in, for its head.
        date: for its head.
        samples: the signal length n of 1(c): the inputs of the fully-connected layer f.
        outputs: of f; None: maps x samples, as many as the convolution g gives.
        kernel_size: of g; odd, because its output is as long as its input.
        maps: feature maps of g, its output channels.
        jacobian_size: the signal length n of the Jacobians that 1(b) shows.
        data: the dataset of the experiment of 1(a), which takes most of the time. None: the experiment is left out.
        data_dir: the folder of the dataset.
        seed: of the signals, the images and the initial weights.
        seeds: trainings of each network, with `seed`, `seed + 1`, ...
        on_trial_end: called with each network of the experiment once it is trained and tested.

    Returns:
        The sheet; `reports.theory.write_sheet` writes it as Markdown, HTML and PDF.

    Raises:
        LabError: before work starts, if the answers cannot be read, a size makes no sense, or there is no such dataset.

    >>> sheet = answer_sheet(samples=64, kernel_size=5, maps=4, data=None)
    >>> sheet.answers[2].question[:45], len(sheet.checks), len(sheet.failed_checks)
    ('$f$ is a fully-connected layer from 64 to 256', 14, 0)
    """
    settings = SheetSettings(
        sizes=LayerSizes(samples, maps, kernel_size, outputs),
        jacobian_size=jacobian_size,
        data=data,
        seed=seed,
        seeds=seeds,
        name=name,
        date=date,
        answers_file=None if answers is None else str(answers),
        own_answers=None if answers is None else read_own_answers(answers),
    )
    splits = (
        load(data, None if data_dir is None else Path(data_dir), image_size=EXPERIMENT_IMAGE_SIZE)
        if data is not None and settings.has_experiment
        else None
    )
    return make_sheet(settings, splits, on_trial_end)


def make_sheet(
    settings: SheetSettings, splits: DatasetSplits | None, on_trial_end: Callable[[PriorsTrial], None] | None = None
) -> AnswerSheet:
    """Run the experiment and every check.

    Args:
        settings: of the sheet.
        splits: the images of the experiment; None if the settings leave it out.
        on_trial_end: called with each network of the experiment once it is trained and tested.

    Returns:
        The sheet.

    Raises:
        LabError: the experiment cannot be made with these images.
    """
    experiment = None
    if settings.has_experiment and settings.data is not None and splits is not None:
        config = priors.config_for_dataset(settings.data, settings.seed, settings.seeds)
        experiment = priors.run_priors_experiment(config, splits, on_trial_end)
    makers = {
        "1(a)": lambda: answer_question_1a(settings.seed, experiment, splits, settings.sizes.kernel_size),
        "1(b)": lambda: answer_question_1b(settings.seed, settings.jacobian_size),
        "1(c)": lambda: answer_question_1c(settings.seed, settings.sizes),
    }
    checked = tuple(makers[part]() for part in settings.answered_parts)
    own = settings.own_answers
    answers = checked if own is None else with_own_answers(checked, own, questions(settings.sizes))
    name, date = settings.name.strip(), settings.date.strip()
    return AnswerSheet(TITLE, describe_provenance(settings), answers, name, date, experiment, own is not None)


def questions(sizes: LayerSizes | None = None) -> dict[str, str]:
    """The question of each part, with these sizes; default: the course's."""
    return dict(zip(QUESTION_PARTS, (question_1a(), question_1b(), question_1c(sizes or LayerSizes())), strict=True))


def with_own_answers(
    checked: tuple[QuestionAnswer, ...], own_answers: OwnAnswers, questions: Mapping[str, str]
) -> tuple[QuestionAnswer, ...]:
    """A person's answers, and an appendix with what convolab measured and checked for the parts that are answered."""
    own = [
        QuestionAnswer(part, question, "", own_answers.get(part) or (OpenItem(f"{part} is not answered yet."),))
        for part, question in questions.items()
    ]
    evidence = [block for answer in checked for block in (Heading(answer.name), *evidence_blocks(answer))]
    return (*own, QuestionAnswer(APPENDIX, "", "", tuple(evidence))) if evidence else tuple(own)


def describe_provenance(settings: SheetSettings) -> MarkedUpText:
    """Who answered, and the command that runs the checks again."""
    command = Span("code", " ".join(["convolab theory", *command_options(settings)]))
    run = f", with torch {torch.__version__}; every check was run when this sheet was made."
    if settings.own_answers is None:
        return (Span("text", "Answered by "), command, Span("text", run))
    if not settings.answered_parts:
        return (Span("text", "Typeset by "), command, Span("text", "."))
    start = "Answered in the author's own words. The appendix is convolab's own calculation, by "
    return (Span("text", start), command, Span("text", f"{run} Its checks do not look at the author's answers."))


def command_options(settings: SheetSettings) -> list[str]:
    """The options of the command that makes the sheet; sizes only where they are not the course's.

    >>> command_options(SheetSettings(LayerSizes(samples=64), data=None))
    ['--seed 0', '--quick', '--samples 64']
    """
    sizes, usual = settings.sizes, LayerSizes()
    values = {
        "--answers": settings.answers_file,
        "--seed": settings.seed,
        "--data": settings.data,
        "--seeds": None if settings.data is None else settings.seeds,
        "--samples": sizes.samples if sizes.samples != usual.samples else None,
        "--outputs": sizes.outputs,
        "--kernel-size": sizes.kernel_size if sizes.kernel_size != usual.kernel_size else None,
        "--maps": sizes.maps if sizes.maps != usual.maps else None,
        "--jacobian-size": settings.jacobian_size if settings.jacobian_size != DEFAULT_JACOBIAN_SIZE else None,
    }
    options = [f"{option} {shell_word(value)}" for option, value in values.items() if value is not None]
    if settings.data is None:
        options.insert(options.index(f"--seed {settings.seed}") + 1, "--quick")
    return options
