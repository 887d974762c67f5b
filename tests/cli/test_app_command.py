"""The command `convolab app`, without its server."""

from pathlib import Path

import pytest


def test_studies_beside_the_runs_are_named_with_the_command_that_shows_them(run_cli, monkeypatch) -> None:
    pytest.importorskip("starlette", reason="the page is not installed: pip install 'convolab[app]'")
    monkeypatch.setattr(
        "convolab.app.server.serve_page", lambda state, host, port, on_ready, on_note: on_ready("http://127.0.0.1/")
    )
    assert "is not shown here" not in run_cli("app", "--no-open").err
    Path("studies").mkdir()
    assert "studies/ is not shown here: convolab app --runs studies\n" in run_cli("app", "--no-open").err
    assert "is not shown here" not in run_cli("app", "--no-open", "--runs", "studies").err
