"""The parts of the answer sheet."""

from convolab.theory.sheet import (
    AnswerSheet,
    Check,
    Formula,
    OpenItem,
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


def test_a_sheet_lists_its_open_parts_and_says_in_short_what_it_holds() -> None:
    answered = QuestionAnswer("1(a)", "q", "s", (Text("x"), Check("a", "b", True)))
    unanswered = QuestionAnswer("1(b)", "q", "", (OpenItem("not yet"),))
    sheet = AnswerSheet("A title", "p", (answered, unanswered))
    assert sheet.open_parts == ("1(b)",)
    assert repr(sheet) == "<A title: 1 of 1 checks passed>"


def test_columns_of_numbers_are_right_aligned() -> None:
    rows = (("100", "none", "words"), ("200", "10 %", "more"), ("300", "20 %", "words"))
    assert Table("c", ("a", "b", "c"), rows).numeric_columns == [False, True, False]
    assert Table("c", ("a", "b"), ()).numeric_columns == [False, False]
