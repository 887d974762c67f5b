"""Options that a command does not have, or no longer: one line names the new one, or the other way."""

from convolab.core.errors import LabError

# What was typed after `convolab` -> what is typed today.
RETIRED = {
    "account": "summary",
    "summary --batch": "summary --batch-size",
    "summary --convention": "summary --beside",
    "data fetch": "data download",
    "data show --size": "data show --image-size",
    "study --engine": "study --executor",
    "study --repair": "study --retrain-damaged",
    "sweep --engine": "sweep --executor",
    "sweep --repair": "sweep --retrain-damaged",
    "test --unfinished": "test --allow-unfinished",
    "fool --step": "fool --step-size",
    "fool --steps": "fool --max-steps",
    "fool --sources": "fool --surrogates",
    "fool --transfer": "fool --victims",
    "locate --placement": "locate --alignment",
    "locate --over": "locate --granularity",
    "locate --check": "locate --sliding-window-check",
    "locate --score": "locate-score",
    "locate --count": "locate-score --num-objects",
    "locate-score --over": "locate-score --granularity",
    "locate-score --count": "locate-score --num-objects",
}

# Keys of a recipe that people look for as options -> the values to write there.
RECIPE_KEYS = {
    "optimizer.weight_decay": "X",
    "optimizer.momentum": "X",
    "optimizer.nesterov": "true",
    "schedule.gamma": "X",
    "schedule.step_size": "N",
    "schedule.warmup": "N",
    "model.dropout": "X",
    "model.channels": "[16,32]",
    "model.batch_norm": "false",
    "model.activation": "NAME",
    "training.patience": "N",
    "training.label_smoothing": "X",
    "training.clip_norm": "X",
    "training.ema": "X",
    "training.precision": "NAME",
    "data.limit": "N",
    "data.validation": "X",
    "data.image_size": "N",
    "loss.name": "NAME",
    "sampling.name": "NAME",
}

# An option that took no value once -> what to give it.
NEEDS_VALUE = {"handin verify --csv": "give a file to write, or - to print the table"}

# An option that another command has -> how this one does it.
OTHER_WAYS = {
    "study --epochs": "set training.epochs in the study file, or give coursework a --budget",
    "study --lr": "set optimizer.lr in the study file",
    "study --set": "set the key in the study file, below [recipe]",
    "study --seed": "give --seeds N, or list seeds in the study file",
    "sweep --seed": "give --seeds N, which trains each arm with the seeds 0 to N - 1",
    "sweep --lr": "give optimizer.lr=X after the recipe; several values make a grid",
    "sweep --optimizer": "give optimizer.name=NAME after the recipe; several values make a grid",
    "sweep --schedule": "give schedule.name=NAME after the recipe; several values make a grid",
    "sweep --augment": "give 'data.augment=[\"flip\"]' after the recipe; several values make a grid",
    "train --learning-rate": "did you mean '--lr'?",
    "compare --epochs": "the runs that it compares are trained already",
    "resume --set": "a run keeps its recipe: train a new one with --set",
}
for key, value in RECIPE_KEYS.items():
    option = f"--{key.removesuffix('.name').rpartition('.')[2].replace('_', '-')}"
    OTHER_WAYS[f"train {option}"] = f"give --set '{key}={value}'"
    OTHER_WAYS[f"sweep {option}"] = f"give '{key}={value}' after the recipe; several values make a grid"


def refuse_retired(words: str) -> None:
    """Raise LabError if `words`, a command or a command and an option, have a new name.

    >>> refuse_retired("study --engine")
    Traceback (most recent call last):
    convolab.core.errors.LabError: 'convolab study --engine' is now called 'convolab study --executor'
    """
    if words in RETIRED:
        raise LabError(f"'convolab {words}' is now called 'convolab {RETIRED[words]}'")
