"""What a job may give back from behind the fence: a plain file of bounded size, and nothing that leads elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convolab.core.errors import LabError
from convolab.handin.verify import fence
from convolab.handin.verify.fence import Permission, run_fenced, work_folder
from convolab.handin.verify.fenced_job import RESULT

WITHOUT_RESULT = "it ended without a result: the last line"
GetResult = Callable[..., dict[str, Any]]


@pytest.fixture
def result_of(monkeypatch: pytest.MonkeyPatch) -> GetResult:
    """The result of a job that leaves something in the place of its result and ends with an exit code."""

    def call(leave: Callable[[Path], object], code: int | None = 0) -> dict[str, Any]:
        def run(command: list[str], folder: Path, *_: object) -> tuple[int | None, str]:
            leave(folder / RESULT)
            return code, "the first line\nthe last line\n"

        monkeypatch.setattr(fence, "run_process", run)
        monkeypatch.setattr(fence, "bubblewrap", lambda: None)
        with work_folder() as folder:
            return run_fenced(folder, {"kind": "execute"}, Permission())

    return call


def test_the_fields_of_a_plain_file_are_the_result(result_of: GetResult) -> None:
    assert result_of(lambda path: path.write_text('{"executed": "a.ipynb"}')) == {"executed": "a.ipynb"}


def test_a_result_that_is_a_link_is_none_wherever_it_leads(result_of: GetResult, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"executed": "a.ipynb"}')
    with pytest.raises(LabError, match=WITHOUT_RESULT):
        result_of(lambda path: path.symlink_to(tmp_path / "secret"))
    with pytest.raises(LabError, match=WITHOUT_RESULT):
        result_of(lambda path: path.mkdir())
    with pytest.raises(LabError, match=WITHOUT_RESULT):
        result_of(lambda path: None)


def test_a_result_is_read_up_to_a_number_of_bytes(result_of: GetResult, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"executed": "a.ipynb"})
    monkeypatch.setattr(fence, "MAX_RESULT_BYTES", len(text))
    assert result_of(lambda path: path.write_text(text)) == {"executed": "a.ipynb"}
    with pytest.raises(LabError, match="it is too large to be read"):
        result_of(lambda path: path.write_text(f"{text} "))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "its result holds no fields"),
        ("{", "its result is not JSON"),
        ("[" * 10_000 + "]" * 10_000, "its result is nested too deeply"),
        ('{"error": "it is full"}', "^it is full$"),
    ],
)
def test_a_result_of_something_else_is_refused_in_one_line(result_of: GetResult, text: str, words: str) -> None:
    with pytest.raises(LabError, match=words) as caught:
        result_of(lambda path: path.write_text(text))
    assert "\n" not in str(caught.value)


def test_a_job_without_a_result_says_how_it_ended(result_of: GetResult) -> None:
    for code, words in ((None, "it took more than 4 h"), (-9, "ended by signal 9 "), (1, WITHOUT_RESULT)):
        with pytest.raises(LabError, match=words):
            result_of(lambda path: None, code)
