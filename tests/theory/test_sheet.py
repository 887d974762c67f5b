"""The parts of the answer sheet."""

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


def test_markup_is_split_into_all_its_parts() -> None:
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


def test_a_check_that_raises_an_error_fails_with_the_message() -> None:
    def failing_check() -> tuple[str, bool]:
        raise RuntimeError("no\n such shape")

    assert run_sheet_check("it works", failing_check) == Check(
        "it works", "the check raised an error: no such shape", False
    )


def test_a_sheet_lists_its_failed_checks() -> None:
    passed, failed = Check("a", "b", True), Check("c", "d", False)
    sheet = AnswerSheet(
        "t",
        "m",
        (QuestionAnswer("1", "q", "s", (Text("x"), passed)), QuestionAnswer("2", "q", "s", (failed, Formula("y")))),
    )
    assert sheet.checks == (passed, failed)
    assert sheet.failed_checks == (failed,)


def test_the_cells_of_a_table_are_strings() -> None:
    assert make_sheet_table("c", ["a", "b"], [[1, 2.5]]) == Table("c", ("a", "b"), (("1", "2.5"),))
