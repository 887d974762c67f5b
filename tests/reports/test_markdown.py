"""The writer of Markdown: what it writes is read as the text that it was, wherever it stands."""

import inspect

import pytest
from markdown_it import MarkdownIt

from convolab.reports import markdown, theory_markdown
from convolab.theory.sheet import Span

HOSTILE = (
    "<script>alert(1)</script>", "[name](file:///etc/passwd)", "![image](x)", "&lt;b&gt; &amp; &", "`a` **b** *i* _u_ ~~s~~",
    "# no heading", "no heading #", "a # b ##", "- no list", "1. no list", "1) no list", "--- | ---", ": no table", "=== x",
    r"\backslash \$ \\", "lr_2_x __init__ _", "$x_1$", "-5", "| a | b |",
)  # fmt: skip


def read_back(source: str) -> tuple[list[str], str]:
    """The blocks that a text has as Markdown, and the text in them."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(source)
    inner = [child for token in tokens for child in token.children or []]
    blocks = [token.type for token in tokens if token.type.endswith("_open")]
    assert {child.type for child in inner} <= {"text"}
    return blocks, "".join(child.content for child in inner)


@pytest.mark.parametrize("text", HOSTILE)
def test_an_escaped_text_is_read_as_itself_in_a_paragraph_a_heading_and_an_item(text: str) -> None:
    assert read_back(markdown.escape(text)) == (["paragraph_open"], text)
    assert read_back(markdown.heading(text, 2)) == (["heading_open"], text)
    in_list = ["bullet_list_open", "list_item_open", "paragraph_open"]
    assert read_back(markdown.item_list([markdown.escape(text)])) == (in_list, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_part_of_a_line_is_read_as_itself_with_the_white_space_around_it(text: str) -> None:
    assert read_back(f"before {markdown.escape_part(f' {text} ')}after")[1] == f"before  {text} after"


@pytest.mark.parametrize("text", ["a", "`a`", "a``b", "``", "$x$ **b**"])
def test_code_within_a_line_is_read_as_itself(text: str) -> None:
    (token,) = MarkdownIt("commonmark").parseInline(markdown.inline_code(text))[0].children
    assert (token.type, token.content) == ("code_inline", text)


def test_a_numbered_list_within_a_list_is_within_its_item() -> None:
    source = markdown.item_list(["one\n\n" + markdown.item_list(["inner", "last"], start=4), "two"])
    assert source == "- one\n\n  4. inner\n  5. last\n- two"
    assert MarkdownIt("commonmark").render(source).count('<ol start="4">') == 1


def test_the_answer_sheet_has_no_rules_of_its_own_for_what_is_escaped() -> None:
    assert "import re\n" not in inspect.getsource(theory_markdown)
    assert theory_markdown.span_markdown(Span("text", "<b> a_b #")) == markdown.escape_part("<b> a_b #")
