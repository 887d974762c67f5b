"""What classes are called, and which one a person means."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from convolab.core.errors import LabError, nearest, need

# Two pairs of ImageNet's thousand bear one name: the bird and the machine, the tights and the bathing suit.
NAMESAKES = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710637": "maillot (tights)",
    "n03710721": "maillot (swimsuit)",
}

Synonyms = tuple[tuple[str, ...], ...]  # for each class, whatever else it is called by


@cache
def imagenet() -> tuple[tuple[str, ...], Synonyms]:
    """The names of ImageNet's 1,000 classes, and for each its WordNet id and all its names, from the files that come with timm.

    >>> names, synonyms = imagenet()
    >>> names[1], synonyms[817]
    ('goldfish', ('n04285008', 'sports car', 'sport car'))
    """
    home = find_spec("timm")  # not imported: that takes longer than all the rest
    need(home is not None, "timm, which holds the names of ImageNet's classes, is not installed: pip install timm")
    folder = Path(home.submodule_search_locations[0]) / "data" / "_info"
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    ids = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    synonyms = tuple((wnid, *(lemma.strip() for lemma in lemmas[wnid].strip('"').split(", "))) for wnid in ids)
    return tuple(NAMESAKES.get(words[0], words[1]) for words in synonyms), synonyms


def find_class(word: str | int, classes: Sequence[str], synonyms: Synonyms = ()) -> int:
    """The index of the class a person means: by its name or a synonym, an unambiguous beginning of one, its index or WordNet id.

    Capitals do not count. A whole name goes before an index, an index before a beginning.
    Raises LabError for an unknown class, with the nearest one, and for a beginning that several classes share.

    >>> find_class("ship", ("ship", "shipyard")), find_class("1", ("ship", "shipyard")), find_class("shipy", ("ship", "shipyard"))
    (0, 1, 1)
    """
    asked = str(word).strip().casefold()
    called = [
        {name.casefold(), *(s.casefold() for s in more)}
        for name, more in zip(classes, synonyms or [()] * len(classes), strict=True)
    ]
    # A name goes before a synonym: "tank" is the tank, though a bathing suit is called so too.
    for names in ([{name.casefold()} for name in classes], called):
        exact = [index for index, those in enumerate(names) if asked in those]
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise LabError(f"'{word}' may be {either(exact, classes)}: give one of these")
    if re.fullmatch(r"-?\d+", asked):
        need(
            0 <= int(asked) < len(classes),
            f"there is no class {asked}: this network has {len(classes)}, 0 to {len(classes) - 1}",
        )
        return int(asked)
    begun = [index for index, those in enumerate(called) if asked and any(name.startswith(asked) for name in those)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise LabError(f"'{word}' may be {either(begun, classes)}: give more of the name")
    known = {name for those in called for name in those if not re.fullmatch(r"n\d{8}", name)}
    hint = nearest(asked, known)
    if not hint.startswith("did") and len(classes) > 20:
        hint = f"it has {len(classes)}, such as {', '.join(classes[:: len(classes) // 3][:3])}"
    raise LabError(f"this network knows no class '{word}': {hint}")


def either(indices: list[int], classes: Sequence[str]) -> str:
    names = [f"'{classes[index]}' ({index})" for index in indices[:5]]
    return (
        ", ".join(names[:-1]) + f" or {names[-1]}"
        if len(indices) <= 5
        else f"{', '.join(names)} or {len(indices) - 5} others"
    )
