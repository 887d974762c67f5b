"""Whose text a comment is."""

import pytest
from support.homework_folder import OWN_COMMENT

from convolab.handin.comments import comment_problem, copied_fraction
from convolab.handin.notebooks import PLACEHOLDER

SOLUTION = """On validation there is a gain: 71.3% with residual connections, 70.2% without; the training losses end at
0.812 and 0.799. The shortcut has no weights, so both networks have the same number of parameters. Gradients pass three
blocks without trouble, with batch norm in each."""


@pytest.mark.parametrize(
    "text",
    ["", "   \n", PLACEHOLDER, f"> **Your comment.** What is seen?\n\n{PLACEHOLDER}", "<!-- many words here -->"],
)
def test_a_comment_that_nobody_wrote_is_empty(text: str) -> None:
    assert comment_problem(text, 12) == "it is empty"


def test_what_a_page_does_not_show_is_no_comment_also_where_nothing_ends_it() -> None:
    assert comment_problem(f"It works. <!-- {OWN_COMMENT}", 12) == "it has 2 words: an answer takes at least 12"
    assert comment_problem(f"<!-- hidden --> {OWN_COMMENT} <!-- hidden -->", 12) == ""
    assert comment_problem(f"\t \u00a0> {OWN_COMMENT}\n", 12) == "it is empty"


def test_a_few_words_are_no_answer() -> None:
    assert comment_problem("It works well. 0.93", 12) == "it has 3 words: an answer takes at least 12"


def test_a_few_words_again_and_again_are_no_answer() -> None:
    assert comment_problem("bla " * 50, 12) == "it repeats 1 word: write what you see in your run"
    assert comment_problem("This works very well. " * 5, 12).startswith("it repeats 4 words")


def test_a_comment_of_the_person_is_accepted_with_the_question_above_it() -> None:
    assert comment_problem(f"> **Your comment.** Which is better?\n\n{OWN_COMMENT}", 12) == ""


def test_the_comment_of_the_solution_is_known_whatever_its_numbers_case_and_line_breaks() -> None:
    for text in (SOLUTION, SOLUTION.replace("\n", "  "), SOLUTION.upper(), SOLUTION.replace("71.3%", "12 %")):
        assert "text of the solution" in comment_problem(text, 12)


def test_the_text_of_the_task_is_no_comment() -> None:
    text = "A scheduler changes the learning rate after each epoch. Compare a constant rate with StepLR and one more."
    assert "of the task" in comment_problem(text, 12)


def test_a_quoted_half_sentence_in_a_text_of_ones_own_is_accepted() -> None:
    text = f"The shortcut has no weights, so both networks have the same number of parameters. {OWN_COMMENT}"
    assert 0 < copied_fraction(text) < 0.4
    assert comment_problem(text, 12) == ""
