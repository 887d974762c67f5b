"""The answer sheet's parts."""

from convolab.theory.sheet import (
    AnswerSheet,
    Check,
    Formula,
    QuestionAnswer,
    Table,
    Text,
    make_sheet_table,
    parse_markup,
    run_sheet_check,
)


def test_markup_is_split_and_nothing_is_lost() -> None:
    text = "a **bold $x$** word, `code` and $y^2$."
    assert parse_markup(text) == [
        ("text", "a "),
        ("bold", "bold $x$"),
        ("text", " word, "),
        ("code", "code"),
        ("text", " and "),
        ("formula", "y^2"),
        ("text", "."),
    ]
    assert parse_markup("") == []


def test_a_check_that_raises_an_error_fails_and_says_why() -> None:
    def broken() -> tuple[str, bool]:
        raise RuntimeError("no\n such shape")

    assert run_sheet_check("it works", broken) == Check("it works", "the check raised an error: no such shape", False)


def test_a_sheet_knows_its_failed_checks() -> None:
    good, bad = Check("a", "b", True), Check("c", "d", False)
    sheet = AnswerSheet(
        "t", "m", (QuestionAnswer("1", "q", "s", (Text("x"), good)), QuestionAnswer("2", "q", "s", (bad, Formula("y"))))
    )
    assert sheet.checks == (good, bad)
    assert sheet.failed_checks == (bad,)


def test_a_table_holds_texts() -> None:
    assert make_sheet_table("c", ["a", "b"], [[1, 2.5]]) == Table("c", ("a", "b"), (("1", "2.5"),))
