"""A person's own answers: what is read of Markdown, what stays text, and what is refused."""

from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.theory.own_answers import (
    MAX_BYTES_OF_ANSWERS,
    QUESTION_PARTS,
    own_answers_template,
    parse_own_answers,
    read_own_answers,
    write_answers_template,
)
from convolab.theory.question1 import questions
from convolab.theory.sheet import CodeBlock, Formula, Heading, ItemList, Span, Table, Text, plain_text


def blocks_of(markdown: str) -> tuple:
    return parse_own_answers(f"## 1(a)\n\n{markdown}")["1(a)"]


def test_text_formulas_bold_italics_and_code_are_read() -> None:
    (paragraph,) = blocks_of("so **bold $a*b$**, *it*, `c$d` and\n$x_i y_i$ costs $5 and $6  \nnew \\* line")
    assert paragraph == Text(
        (
            Span("text", "so "),
            Span("bold", (Span("text", "bold "), Span("formula", "a*b"))),
            Span("text", ", "),
            Span("italic", (Span("text", "it"),)),
            Span("text", ", "),
            Span("code", "c$d"),
            Span("text", " and"),
            Span("text", " "),
            Span("formula", "x_i y_i"),
            Span("text", " costs $5 and $6"),
            Span("line break", ""),
            Span("text", "new * line"),
        )
    )


@pytest.mark.parametrize("formula", ["$$z = x$$", "$$\nz =\n  x\n$$", "  $$ z =\nx $$"])
def test_a_display_formula_may_begin_and_end_in_any_line(formula: str) -> None:
    text, block, rest = blocks_of(f"before\n{formula}\nafter")
    assert block == Formula("z = x")
    assert (plain_text(text.text), plain_text(rest.text)) == ("before", "after")


def test_lists_tables_code_and_headings_are_read() -> None:
    heading, bullets, numbers, table, code = blocks_of(
        "### Why $x$\n\n- one\n  - inner\n- two\n\n3. three\n\n| a | $b$ |\n|---|---|\n| 1 | 2 |\n\n```python\nx = '$'\n```"
    )
    assert heading == Heading((Span("text", "Why "), Span("formula", "x")))
    assert isinstance(bullets, ItemList)
    assert (len(bullets.items), bullets.start) == (2, None)
    assert isinstance(bullets.items[0][1], ItemList)
    assert numbers == ItemList(((Text((Span("text", "three"),)),),), start=3)
    assert table == Table(
        "", ((Span("text", "a"),), (Span("formula", "b"),)), (((Span("text", "1"),), (Span("text", "2"),)),)
    )
    assert code == CodeBlock("x = '$'")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        '<img src="x" onerror="alert(1)">',
        "[name](file:///etc/passwd)",
        "![image](secret.png)",
        "<https://example.org>",
        "[a]: http://example.org",
        '#read("/etc/passwd")',
        "text\n> quoted",
        "</script></style></body>",
    ],
)
def test_html_links_images_and_quotes_are_read_as_text(text: str) -> None:
    (paragraph,) = blocks_of(text)
    assert isinstance(paragraph, Text)
    assert plain_text(paragraph.text) == text.replace("\n", " ")
    assert {kind for kind, _ in paragraph.text} == {"text"}


def test_comments_on_lines_of_their_own_and_rules_are_left_out() -> None:
    assert blocks_of("<!-- a\n\n## 1(b)\n-->\n\n---\n\nx") == (Text((Span("text", "x"),)),)


@pytest.mark.parametrize(
    ("heading", "part"),
    [("## 1(b)", "1(b)"), ("# 1b", "1(b)"), ("## (b)", "1(b)"), ("## Question 1 (b):", "1(b)"), ("## 1 (B).", "1(b)")],
)
def test_a_part_is_known_by_each_usual_heading(heading: str, part: str) -> None:
    answers = parse_own_answers(f"{heading}\n\ntext")
    assert answers[part]
    assert [name for name in QUESTION_PARTS if not answers[name]] == ["1(a)", "1(c)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.md has no heading of a part: give '## 1(a)', '## 1(b)' and '## 1(c)'"),
        ("hello", "mine.md, line 1: the text is before the first heading '## 1(a)'"),
        ("# 1(d)\nx", "mine.md, line 1: the heading '1(d)' is not one of 1(a), 1(b) and 1(c)"),
        ("# Title\n\nx", "mine.md has no heading of a part"),
        ("## Title\n\nx", "mine.md, line 1: the heading 'Title' is not one of"),
        ("## 1(a)\nx\n\n# Title\ny", "mine.md, line 4: the heading 'Title' is not one of"),
        ("## 1(a)\nx\n\n## 2(a)\ny", "mine.md, line 4: the heading '2(a)' is not one of 1(a), 1(b) and 1(c)"),
        ("## 1(a)\nx\n\n# 1 a\ny", "mine.md, line 4: 1(a) was answered in line 1 already"),
        ("## 1(a)\n$$\nx", "mine.md, line 2: the formula's $$ is not closed"),
        ("## 1(a)\n$$\nx\n$$ y", "mine.md, line 2: the formula's $$ is closed in the middle of line 4"),
        ("## 1(a)\n$$ $$", "mine.md, line 2: the formula's $$ holds no formula"),
    ],
)
def test_a_text_that_is_no_answer_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        parse_own_answers(text, "mine.md")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"## 1(a)\n" + b"x" * MAX_BYTES_OF_ANSWERS, "has 1,000,008 bytes: give a text of at most 1,000,000"),
        (b"## 1(a)\n\xff\xfe", "is not text in UTF-8 (byte 8)"),
        (b"## 1(a)\na\x00b", "line 2: the control character U+0000 is not text"),
    ],
)
def test_a_file_that_is_too_large_or_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(content)
    with pytest.raises(LabError) as caught:
        read_own_answers(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no file"):
        read_own_answers(tmp_path / "none.md")
    with pytest.raises(LabError, match="is not a file"):
        read_own_answers(tmp_path)


def test_a_file_of_windows_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes("\ufeff## 1(a)\r\n\r\n$$\r\nx\r\n$$\r\n".encode())
    assert read_own_answers(path)["1(a)"] == (Formula("x"),)


def test_the_template_has_every_question_and_answers_none() -> None:
    template = own_answers_template(questions())
    assert all(question in template for question in questions().values())
    assert parse_own_answers(template) == dict.fromkeys(QUESTION_PARTS, ())
    filled = template.replace("*Write your answer here, in place of this line.*", "Mine.", 1)
    assert parse_own_answers(filled)["1(a)"] == (Text((Span("text", "Mine."),)),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "### Why",
        "### Why\n\n…\n",
        "TODO",
        "*TODO: write*",
        "- \n- ?",
        "<!-- later -->",
        "| a |\n|---|\n| |",
        "> Which?",
    ],
)
def test_headings_signs_and_what_is_to_be_done_are_no_answer(text: str) -> None:
    assert blocks_of(text) == ()


@pytest.mark.parametrize(
    "text", ["### Why\n\nBecause.", "$x$", "$$\nz\n$$", "```\nx = 1\n```", "- 3\n- ?", "| a |\n|---|\n| 5 |"]
)
def test_a_word_a_formula_or_code_is_an_answer(text: str) -> None:
    assert blocks_of(text)


def test_the_file_of_the_whole_homework_is_read_too() -> None:
    text = (
        "# Question 1: what a convolution assumes\n\nWrite your answers here, or put a PDF beside this file.\n\n"
        "## 1(a)\n> Which assumptions?\n> And when?\n\nMine.\n\n> a quote of mine\n\n"
        "## 1(b)\n> Which?\n\n*Write your answer here, in place of this line.*\n"
    )
    answers = parse_own_answers(text)
    assert [plain_text(block.text) for block in answers["1(a)"]] == ["Mine.", "> a quote of mine"]
    assert answers["1(b)"] == answers["1(c)"] == ()


def test_a_template_never_replaces_what_is_there(tmp_path: Path) -> None:
    path = write_answers_template(tmp_path / "new" / "a.md", questions())
    path.write_text("mine")
    link = tmp_path / "link.md"
    link.symlink_to(tmp_path / "nowhere.md")
    for taken in (path, link, tmp_path):
        with pytest.raises(LabError, match="exists already and is never overwritten"):
            write_answers_template(taken, questions())
    assert path.read_text() == "mine"
    assert not (tmp_path / "nowhere.md").exists()
