"""What speaks against a hand-in: each sign says where, what, and by which means it was found."""

from dataclasses import dataclass
from typing import Literal

Means = Literal["reading", "rerun", "execute"]
Weight = Literal["sign", "shared", "note", "confirmed", "skipped"]
# What no reading can show, for the report and for who writes the next check.
READING_CANNOT_SHOW = (
    "who wrote it: the manifest's digests are no signature, and whoever changes a file can write them again",
    "whether a run was trained at all: recipe, metrics and digests that were made up with care agree with each other",
    "whether an output came from its cell: numbers, charts and counts that were changed together agree with each other",
    "what an image of pixels shows, such as a saliency map of another image",
    "whether equal answers were copied, or are the one obvious answer",
)


@dataclass(frozen=True)
class Sign:
    """One thing that was found in a hand-in.

    A "sign" is a contradiction, which no honest hand-in has; what is "shared" was copied by at least one of those who
    share it; a "note" is unusual, and has honest reasons too; "confirmed" is what came out the same when it was run
    again; "skipped" says what was asked for and could not be done.
    """

    where: str  # such as question2_training.ipynb, q2-9-figure
    what: str
    means: Means = "reading"
    weight: Weight = "sign"
    shared_by: tuple[str, ...] = ()  # all hand-ins that share this: a group; empty: it is of this one alone
    parts: tuple[str, ...] = ()  # of a group: the things that it shares, one by one

    @property
    def line(self) -> str:
        """All of it in a line."""
        return f"[{self.means}] {self.where}: {self.what}" + (
            f": {', '.join(self.shared_by)}" if self.shared_by else ""
        )


def as_shared(where: str, what: str) -> Sign:
    """What hand-ins share and at least one of them copied."""
    return Sign(where, what, weight="shared")


def as_note(where: str, what: str, means: Means = "reading") -> Sign:
    """What is unusual, but has honest reasons too."""
    return Sign(where, what, means, "note")


def confirmed(where: str, what: str, means: Means) -> Sign:
    """What was run again and came out the same."""
    return Sign(where, what, means, "confirmed")


def skipped(where: str, what: str, means: Means) -> Sign:
    """What was to be run again, and was not."""
    return Sign(where, what, means, "skipped")
