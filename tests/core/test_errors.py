import pytest

from convolab.core.errors import LabError, require, suggest


@pytest.mark.parametrize("condition", [False, 0, None, ()])
def test_a_requirement_that_is_not_met_raises_an_error_with_its_message(condition: object) -> None:
    with pytest.raises(LabError, match=r"^give more$"):
        require(condition, "give more")


def test_the_closest_name_is_suggested_or_all_names_if_none_is_close() -> None:
    assert suggest("flipp", ["crop", "flip", "clip"]) == "did you mean 'flip'?"
    assert suggest("zebra", ["crop", "flip"]) == "known: crop, flip"
