"""Two runs of one seed each, in words: how they differ, what each reached, and the command that would decide."""

import json
from collections.abc import Mapping, Sequence

from convolab.core.escape import command_line
from convolab.core.run_files import RECIPE_FILE
from convolab.core.text import format_percent
from convolab.core.types import Json
from convolab.studies.analyze import held_out_choice
from convolab.studies.formatting import describe_step
from convolab.studies.section import Overrides
from convolab.studies.sweep import parse_sweep_values
from convolab.training.history import best_epoch_of
from convolab.training.run import Run

DECIDING_SEEDS = 3  # that a contrast needs at least
MAX_KEYS = 8  # that are named
NOT_SET = "not set"


def describe_single_runs(runs: Sequence[Run], names: Sequence[str], overrides: Sequence[Overrides]) -> str:
    """A line each: the difference of two runs' recipes, what each reached, what that shows, and how to decide it.

    Args:
        runs: two, with different recipes.
        names: what they are called.
        overrides: the recipe keys of each that are not in both.
    """
    differing = differing_keys(overrides)
    seeds = [run.recipe.training.seed for run in runs]
    keys = [f"{key} ({first} and {second})" for key, (first, second) in differing.items()]
    more = f", and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else ""
    lines = [f"Their recipes differ in {', '.join(keys[:MAX_KEYS])}{more}."]
    if seeds[0] != seeds[1]:
        lines.append(f"Their seeds differ too ({seeds[0]} and {seeds[1]}), so part of any difference is the seed's.")
    lines += [f"'{name}' reached {describe_best(run)}." for run, name in zip(runs, names, strict=True)]
    if difference := describe_gap(runs):
        is_same = len({held_out_choice(run.recipe, run.summary) for run in runs}) == 1
        where = "" if is_same else ", each on validation images of its own"
        lines.append(f"So '{names[1]}' is {difference}, compared with '{names[0]}'{where}.")
    lines.append(
        "One seed each cannot show which is better: another seed may reverse the order. At least three seeds of both may:"
    )
    return "\n".join(lines + deciding_commands(runs, differing))


def differing_keys(overrides: Sequence[Overrides]) -> dict[str, tuple[str, str]]:
    """The keys whose values differ, with both values as an option takes them.

    >>> differing_keys([{"optimizer.lr": 0.1, "model.residual": True}, {"optimizer.lr": 0.01, "model.residual": True}])
    {'optimizer.lr': ('0.1', '0.01')}
    """
    first, second = overrides
    return {
        key: (option_value(first, key), option_value(second, key))
        for key in {**first, **second}
        if key not in first or key not in second or first[key] != second[key]
    }


def option_value(overrides: Mapping[str, Json], key: str) -> str:
    """A value as an option takes it; a text without its quotes."""
    if key not in overrides:
        return NOT_SET
    value = overrides[key]
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def describe_best(run: Run) -> str:
    """The best validation accuracy and loss, each with its epoch; without validation images the last training ones."""
    best = best_epoch_of(run.history)
    assert best is not None  # `compare_runs` refuses a run without an epoch
    losses = [(epoch.validation_loss, epoch.epoch) for epoch in run.history if epoch.validation_loss is not None]
    if best.validation_accuracy is None or not losses:
        return f"training accuracy {format_percent(best.train_accuracy)} and loss {best.train_loss:.4f} in epoch {best.epoch}"
    loss, epoch = min(losses)
    accuracy = f"{format_percent(best.validation_accuracy)} (epoch {best.epoch})"
    return f"a best validation accuracy of {accuracy} and a best validation loss of {loss:.4f} nats (epoch {epoch})"


def describe_gap(runs: Sequence[Run]) -> str:
    """By how much the second run's best values differ from the first's; empty where there are no validation images."""
    accuracies = [
        max((e.validation_accuracy for e in run.history if e.validation_accuracy is not None), default=None)
        for run in runs
    ]
    losses = [
        min((e.validation_loss for e in run.history if e.validation_loss is not None), default=None) for run in runs
    ]
    if accuracies[0] is None or accuracies[1] is None or losses[0] is None or losses[1] is None:
        return ""
    points, nats = 100 * (accuracies[1] - accuracies[0]), losses[1] - losses[0]
    if not points and not nats:
        return "equal in accuracy and loss"
    return f"{describe_step(points, 2, 'percentage points')} in accuracy and {describe_step(nats, 4, 'nats')} in loss"


def deciding_commands(runs: Sequence[Run], differing: Mapping[str, tuple[str, str]]) -> list[str]:
    """A sweep where one key with a value in both differs; else a training for each seed that is missing, and a comparison."""
    root = runs[0].summary["data"]["dir"]
    data = ["--data-dir", root] if root else []
    if len(differing) == 1:
        ((key, values),) = differing.items()
        word = f"{key}={','.join(values)}"
        if NOT_SET not in values and len(parse_sweep_values(word)[1]) == 2:
            recipe = str(runs[0].folder / RECIPE_FILE)
            return [command_line(["sweep", recipe, word, "--seeds", str(DECIDING_SEEDS), *data])]
    first_seed = runs[0].recipe.training.seed
    commands, folders = [], []
    for run in runs:
        for seed in range(first_seed, first_seed + DECIDING_SEEDS):
            folder = str(run.folder)
            if seed != run.recipe.training.seed:
                recipe, folder = str(run.folder / RECIPE_FILE), f"{folder}-seed{seed}"
                commands.append(
                    command_line(["train", "--recipe", recipe, "--seed", str(seed), "--out", folder, *data])
                )
            folders.append(folder)
    return [*commands, command_line(["compare", *folders])]
