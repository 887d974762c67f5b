"""Finding a class by its name, index or WordNet id."""

import pytest

from convolab.core.errors import LabError
from convolab.models.class_names import find_class, imagenet_class_names, split_class_names

NAMES, SYNONYMS = imagenet_class_names()


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("goldfish", 1),
        ("Egyptian cat", 285),
        ("egyptian CAT", 285),
        ("Egyptian c", 285),
        ("1", 1),
        (1, 1),
        ("999", 999),
        ("n01443537", 1),
        ("Carassius auratus", 1),
        ("tank", 847),
        ("teapot", 849),
        ("moped", 665),
        ("crane (bird)", 134),
        ("jack-o'-lantern", 607),
    ],
)
def test_a_class_is_found_by_name_prefix_index_or_wordnet_id(text, index):
    assert find_class(text, NAMES, SYNONYMS) == index


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goldfsh", "did you mean 'goldfish'"),
        ("crane", r"is ambiguous, 'crane \(bird\)' \(134\) or 'crane \(machine\)' \(517\)"),
        ("gold", r"'golden retriever' \(207\)"),
        ("1000", "no class 1000: this network has 1000, 0 to 999"),
        ("-1", "no class -1"),
        pytest.param("9" * 5000, "no class 9{20}: this network has 1000", id="too many digits to read"),
        ("n99999999", "has no class 'n99999999'"),
        ("", "has no class"),
        ("zzzzqq", r"known: .* and \d+ more"),
    ],
)
def test_an_unknown_or_ambiguous_class_is_refused(text, message):
    with pytest.raises(LabError, match=message) as caught:
        find_class(text, NAMES, SYNONYMS)
    assert "\n" not in str(caught.value)


def test_a_name_takes_precedence_over_an_index():
    assert find_class("1", ("1", "0")) == 0
    assert find_class("2", ("1", "0", "x")) == 2


def test_there_are_a_thousand_distinct_names():
    assert len(NAMES) == len(set(NAMES)) == len(SYNONYMS) == 1000


def test_a_class_whose_name_holds_commas_is_one_word_everywhere() -> None:
    classes = ("a,b", "a", "b", "crane, bird, tall")
    assert split_class_names("a,b", classes) == ["a,b"]
    assert split_class_names("b,a", classes) == ["b", "a"]
    assert split_class_names(" A,B , b,Crane, Bird, tall", classes) == ["A,B", "b", "Crane, Bird, tall"]
    assert [find_class(word, classes) for word in split_class_names("1, 0", classes)] == [1, 0]


def test_a_whole_word_is_not_the_beginning_of_another() -> None:
    classes, synonyms = imagenet_class_names()
    with pytest.raises(LabError, match="'dog' is ambiguous"):
        find_class("dog", classes, synonyms)
    with pytest.raises(LabError) as caught:
        find_class("cat", classes, synonyms)
    assert "'tabby'" in str(caught.value) or "'tiger cat'" in str(caught.value)
    assert "oscilloscope" not in str(caught.value)
    assert classes[find_class("dogs", classes, synonyms)] == "dogsled"
    assert classes[find_class("egyptian", classes, synonyms)] == "Egyptian cat"
