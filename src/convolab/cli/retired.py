"""The commands and options of the first edition: who types one gets one line that names the new one."""

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


def refuse_retired(words: str) -> None:
    """Raise LabError if `words`, a command or a command and an option, have a new name.

    >>> refuse_retired("study --engine")
    Traceback (most recent call last):
    convolab.core.errors.LabError: 'convolab study --engine' is now called 'convolab study --executor'
    """
    if words in RETIRED:
        raise LabError(f"'convolab {words}' is now called 'convolab {RETIRED[words]}'")
