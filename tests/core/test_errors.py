import pytest

from convolab.core.errors import LabError, require, suggest


@pytest.mark.parametrize("condition", [False, 0, None, ()])
def test_a_requirement_that_does_not_hold_raises_its_own_message(condition: object) -> None:
    with pytest.raises(LabError, match=r"^give more$"):
        require(condition, "give more")


def test_the_closest_of_several_names_is_suggested_and_all_where_none_is_close() -> None:
    assert suggest("flipp", ["crop", "flip", "clip"]) == "did you mean 'flip'?"
    assert suggest("zebra", ["crop", "flip"]) == "known: crop, flip"
