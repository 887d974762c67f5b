"""What is kept of the folder of runs: it is bounded, and read again when it has changed."""

from pathlib import Path

import pytest

from convolab.app import folders
from convolab.app.folders import RunsFolder


def test_what_was_read_of_runs_is_kept_up_to_its_bytes_and_what_was_asked_for_longest_ago_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_KEPT_BYTES", 2_000)
    kept, reads = RunsFolder(tmp_path), []

    def ask(name: str, length: int = 900) -> str:
        def read() -> str:
            reads.append(name)
            return "x" * length

        return kept.cached("playback", name, ("summary.json",), read)

    for name in ("first", "second", "first", "third", "first", "third"):
        ask(name)
    assert reads == ["first", "second", "third"]
    ask("second")
    assert reads[3:] == ["second"]
    assert kept.num_bytes == 2 * len('"' + 900 * "x" + '"')
    assert ask("large", 5_000) == "x" * 5_000  # more than may be kept
    assert kept.num_bytes <= 2_000
    assert len(kept.cache) * 902 == kept.num_bytes


def test_a_run_that_has_changed_is_read_again_and_counts_once(tmp_path: Path) -> None:
    kept, file = RunsFolder(tmp_path), tmp_path / "run" / "summary.json"
    file.parent.mkdir()
    for text in ("a", "bb"):
        file.write_text(text)
        assert kept.cached("row", "run", (file.name,), file.read_text) == text
        assert kept.cached("row", "run", (file.name,), lambda: "not asked for") == text
    assert kept.num_bytes == len('"bb"')
