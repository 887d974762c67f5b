import pytest

from convolab.core.errors import LabError, require, suggest


@pytest.mark.parametrize("condition", [False, 0, None, ()])
def test_a_need_that_does_not_hold_is_said_in_its_own_words(condition: object) -> None:
    with pytest.raises(LabError, match=r"^give more$"):
        require(condition, "give more")


def test_the_nearest_of_several_names_is_suggested_and_all_where_none_is_near() -> None:
    assert suggest("flipp", ["crop", "flip", "clip"]) == "did you mean 'flip'?"
    assert suggest("zebra", ["crop", "flip"]) == "known: crop, flip"
