"""What a report says of a whole study: its size, what failed, times, hardware, and the words it uses."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convolab.core.text import format_duration, pluralize
from convolab.studies.results import (
    TRIAL_STATUSES,
    SectionResult,
    StudyResult,
    TrialResult,
    train_seconds,
)
from convolab.studies.study import Study

# The page's words that a reader may not know, each in a sentence.
GLOSSARY = {
    "arm": "One of the variants that a section compares: the base recipe with a few changes, trained with every seed.",
    "contrast": "A planned comparison of one arm with a baseline arm in one metric, seed by seed.",
    "seed": "The number that decides a run's random draws: initial weights, order of the images, augmentation.",
    "nats": "The unit of the loss, the mean cross-entropy with natural logarithms; guessing among 10 classes costs 2.303.",
    "t-interval": "The values of the true mean that the seeds are compatible with at 95 %, by Student's t-distribution.",
    "p": "How probable a difference at least this large would be if the arms were equally good.",
    "Holm": "Holm's correction raises the p-values of several tests so that, at 5 %, the chance of any false claim "
    "among them stays below 5 %.",
    "interaction": "How much one difference depends on something else: a difference of two differences, seed by seed.",
    "parabola": "The curve through the best value of a grid and its neighbors; its highest or lowest point is the optimum.",
    "look": 'A planned test after some seeds, where seeds are "until decided". The 5 % are shared out among all looks, so '
    "that looking often finds no more false differences. This is exact for differences that are normal; of strongly "
    "skewed ones up to 11 of 100 studies err, and more where a few runs of an arm collapse.",
    "Hedges' g": "A difference in units of its standard deviation over seeds, so that metrics can be compared.",
    "detectable": "The smallest true difference that as many seeds would reveal in four of five studies.",
    "selection bias": "The best of many runs is partly the luckiest, so that its validation accuracy is too high.",
}


def used_terms(result: StudyResult) -> dict[str, str]:
    """The words of GLOSSARY that a study's page uses."""
    contrasts = [contrast for section in result.sections for contrast in section.contrast_results]
    unused = {
        "look": not any(contrast.looks for contrast in contrasts),
        "interaction": not any(contrast.contrast.interaction for contrast in contrasts),
        "parabola": not any(contrast.optimum for contrast in contrasts),
    }
    return {term: meaning for term, meaning in GLOSSARY.items() if not unused.get(term)}


@dataclass(frozen=True)
class SectionTime:
    """A row of the table of seeds and times; a run that sections share counts in each."""

    title: str
    arms: int
    seeds: str
    runs: int
    train_time: str


def study_overview(result: StudyResult) -> list[str]:
    """The study in a few words: its runs, seeds, images and time."""
    results = list(result.trial_results.values())
    statuses = Counter(result.status for result in results)
    datasets = sorted({result.trial.recipe.data.name for result in results})
    counts = ", ".join(f"{statuses[status]:,} {status}" for status in TRIAL_STATUSES if statuses[status])
    return [
        f"{pluralize(len(results), 'run')}: {counts}",
        describe_seeds(result),
        f"images of {', '.join(datasets)}",
        f"{format_duration(train_seconds(results))} of training",
    ]


def describe_seeds(result: StudyResult) -> str:
    """The seeds in a few words; sections may have seeds of their own."""
    if any(result.study.looks(section.name) for section in result.sections):
        counts = sorted({len(arm.results) for section in result.sections for arm in section.arms})
        return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds per arm"
    seeds_of_sections = {result.study.seeds_of(section.name) for section in result.sections}
    if len(seeds_of_sections) == 1:
        (seeds,) = seeds_of_sections
        numbers = ", ".join(map(str, seeds))
        return f"seeds {numbers}" if len(seeds) > 1 else f"one seed, {numbers}"
    counts = sorted({len(seeds) for seeds in seeds_of_sections})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds per arm"
    return f"{pluralize(counts[0], 'seed')} per arm"


def describe_tests(study: Study, sections: Iterable[SectionResult]) -> str:
    """How the contrasts of sections are tested, in a sentence or two; where seeds are "until decided" otherwise than else."""
    until_decided = {bool(study.looks(section.name)) for section in sections if section.contrast_results}
    sentences = []
    if False in until_decided:
        sentences.append(
            "Contrasts are paired t-tests over the seeds, with Holm's correction over the section's contrasts, at 5 %; "
            "intervals are not corrected."
        )
    if True in until_decided:
        sentences.append(
            'Where seeds are "until decided", contrasts are paired t-tests at looks that were planned: the 5 % are shared '
            "out among the looks (Lan and DeMets) and, by Holm's method in its group-sequential form (Maurer and Bretz), "
            "among the section's contrasts. Their intervals hold however often one looks, but are not corrected for the "
            "number of contrasts; their p-values are those of the last look, uncorrected."
        )
    return " ".join(sentences)


def failure_notes(result: StudyResult) -> list[str]:
    """What went wrong, one line each: the study's own notes, then the runs that diverged."""
    diverged = [
        f"{section.name}, {arm.name}, seed {run.trial.seed}: diverged after {pluralize(len(run.history), 'epoch')}"
        + (f": {run.reason}" if run.reason else "")
        for section in result.sections
        for arm in section.arms
        for run in arm.diverged
    ]
    return [*result.notes, *diverged]


def section_times(result: StudyResult) -> list[SectionTime]:
    """A row per section."""
    return [
        SectionTime(
            title=section.section.title or section.name,
            arms=len(section.arms),
            seeds=result.study.seeds_text(section.name),
            runs=sum(len(arm.results) for arm in section.arms),
            train_time=format_duration(train_seconds(run for arm in section.arms for run in arm.results)),
        )
        for section in result.sections
    ]


def provenance(results: Iterable[TrialResult]) -> list[tuple[str, int]]:
    """How the runs were made, with the number of runs: hardware, threads, precision and versions."""
    run_counts: Counter[str] = Counter()
    for result in results:
        if summary := result.summary:
            threads = f"{pluralize(summary['threads'], 'thread')} per run" if summary["threads"] else "any threads"
            versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
            hardware = describe_hardware(summary["hardware"])
            run_counts[f"{hardware}; {threads} on {summary['device']}, {summary['precision']}; {versions}"] += 1
    return run_counts.most_common()


def describe_hardware(hardware: Mapping[str, object]) -> str:
    """Graphics card, processor, cores, system and Python, as far as they were recorded."""
    cores = hardware.get("cores")
    parts = (
        hardware.get("graphics_card"),
        hardware.get("processor"),
        pluralize(cores, "core") if isinstance(cores, int) else None,
        hardware.get("system"),
        f"Python {hardware['python']}" if "python" in hardware else None,
    )
    return ", ".join(str(part) for part in parts if part) or "unknown hardware"
