"""Errors of pydantic in our words."""

import pytest
from pydantic import ValidationError

from convolab.core.plain_words import first_problem, keys_at
from convolab.core.types import Frozen, PositiveInt


class Inner(Frozen):
    count: PositiveInt
    kind: str | float | list[int] = "a"


class Outer(Frozen):
    parts: tuple[Inner, ...]
    names: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("part", "place", "what"),
    [
        ({"count": "many"}, ["parts", 0, "count"], "give a whole number"),
        ({"count": 0}, ["parts", 0, "count"], "give a number above 0"),
        ({"count": 1, "kind": {}}, ["parts", 0, "kind"], "give a text in quotes or a number or a list, [...]"),
        (3, ["parts", 0], "give a table of keys and values"),
    ],
)
def test_a_wrong_value_has_its_place_and_what_to_give(part: object, place: list, what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"parts": [part]})
    found, _, words = first_problem(caught.value)
    assert (found, words) == (place, what)


def test_known_keys_are_those_of_the_table_at_a_place() -> None:
    assert keys_at(Outer, []) == ["parts", "names"]
    assert keys_at(Outer, ["parts", 2]) == keys_at(Outer, ["names", "mine"]) == ["count", "kind"]
    assert keys_at(Outer, ["parts", 2, "kind"]) == []
