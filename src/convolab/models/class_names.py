"""Class names, and finding a class by name."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from convolab.core.errors import LabError, require, suggest

# WordNet ids, with names that tell them apart: of ImageNet's 1,000 classes, two are called crane and two maillot.
AMBIGUOUS_SYNSETS = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
}

Synonyms = tuple[tuple[str, ...], ...]  # for each class, its other names


@cache
def imagenet_class_names() -> tuple[tuple[str, ...], Synonyms]:
    """The names of ImageNet's 1,000 classes, and for each its WordNet id and all its names, from timm's data files.

    Raises LabError if timm is not installed.

    >>> names, synonyms = imagenet_class_names()
    >>> names[1], synonyms[817]
    ('goldfish', ('n04285008', 'sports car', 'sport car'))
    """
    timm_spec = find_spec("timm")  # not imported: that takes longer than everything else here
    if timm_spec is None or not timm_spec.submodule_search_locations:
        raise LabError("timm, which holds the names of ImageNet's classes, is not installed: pip install timm")
    folder = Path(timm_spec.submodule_search_locations[0]) / "data" / "_info"
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    ids = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    synonyms = tuple((wnid, *(lemma.strip() for lemma in lemmas[wnid].strip('"').split(", "))) for wnid in ids)
    return tuple(AMBIGUOUS_SYNSETS.get(words[0], words[1]) for words in synonyms), synonyms


def find_class(query: str | int, classes: Sequence[str], synonyms: Synonyms = ()) -> int:
    """The index of a class, given its name, a synonym, a word or an unambiguous prefix of either, or its WordNet id.

    Case-insensitive. An exact name takes precedence over an index, and an index over a word or a prefix. Raises LabError
    for an unknown class, with the nearest one, and for a word or a prefix that several classes share: a dog is no
    dogsled.

    >>> classes = ("ship", "shipyard")
    >>> find_class("ship", classes), find_class("1", classes), find_class("shipy", classes)
    (0, 1, 1)
    """
    normalized_query = str(query).strip().casefold()
    names_by_class = [
        {name.casefold(), *(synonym.casefold() for synonym in own_synonyms)}
        for name, own_synonyms in zip(classes, synonyms or [()] * len(classes), strict=True)
    ]
    # A name takes precedence over a synonym: "tank" is the tank, though it is a synonym of a swimsuit too.
    for names in ([{name.casefold()} for name in classes], names_by_class):
        exact_matches = [index for index, own_names in enumerate(names) if normalized_query in own_names]
        if len(exact_matches) == 1:
            return exact_matches[0]
        if exact_matches:
            raise LabError(f"'{query}' is ambiguous, {list_candidates(exact_matches, classes)}: give one of these")
    if re.fullmatch(r"-?\d+", normalized_query):
        index = int(normalized_query) if len(normalized_query) < 10 else -1  # Python reads 4,300 digits at most
        require(
            0 <= index < len(classes),
            f"there is no class {normalized_query[:20]}: this network has {len(classes)}, 0 to {len(classes) - 1}",
        )
        return index
    whole_word = re.compile(rf"(?<!\w){re.escape(normalized_query)}(?!\w)")
    with_word, with_prefix = (
        [i for i, names in enumerate(names_by_class) if normalized_query and any(map(matches_name, names))]
        for matches_name in (whole_word.search, lambda name: name.startswith(normalized_query))
    )
    # Many classes may have a word in common; one that alone has it must not hide those that begin with it.
    matches = with_word if len(with_word) > 1 else sorted({*with_word, *with_prefix})
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LabError(f"'{query}' is ambiguous, {list_candidates(matches, classes)}: give more of the name")
    known = {name for own_names in names_by_class for name in own_names if not re.fullmatch(r"n\d{8}", name)}
    raise LabError(f"this network has no class '{query}': {suggest(normalized_query, known, max_listed=20)}")


def split_class_names(text: str, classes: Sequence[str]) -> list[str]:
    """The words of a text with commas between them; a class whose own name holds commas is one word.

    >>> split_class_names("ship, owl", ("ship", "owl")), split_class_names("a,b,c", ("a,b", "a", "b", "c"))
    (['ship', 'owl'], ['a,b', 'c'])
    """
    names = {name.strip().casefold() for name in classes}
    most_commas = max((name.count(",") for name in names), default=0)
    parts = text.split(",")
    words = []
    while parts:
        lengths = range(min(most_commas + 1, len(parts)), 1, -1)
        length = next((n for n in lengths if ",".join(parts[:n]).strip().casefold() in names), 1)
        words.append(",".join(parts[:length]).strip())
        parts = parts[length:]
    return words


def list_candidates(indices: list[int], classes: Sequence[str]) -> str:
    """At most five classes with their indices, joined by `or`."""
    names = [f"'{classes[index]}' ({index})" for index in indices[:5]]
    last = names.pop() if len(indices) <= 5 else f"{len(indices) - 5} others"
    return f"{', '.join(names)} or {last}"
