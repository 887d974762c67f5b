"""What a person sees while a study or a search runs."""

from pathlib import Path
from typing import Any

import pytest

from convolab.reports.live_study import NotebookStudy, StudyProgress
from convolab.studies.executor import Job, JobEvent
from convolab.studies.study import Study


def test_the_time_left_counts_the_present_plan_only() -> None:
    study = Study.from_dict({"name": "x", "seeds": [0, 1], "sections": {"s": {"arms": {"a": {}}}}})
    first, second = (Job(trial.recipe, Path("run"), 1.0) for trial in study.trials)
    progress = StudyProgress(study)
    progress.on_plan([first], 0)
    progress.on_event(JobEvent(first.recipe.key, "finished"))
    progress.on_plan([second], 1)
    progress.on_event(JobEvent(second.recipe.key, "epoch", 0.25))
    progress.started_at -= 10
    seconds_left = progress.seconds_left()
    assert seconds_left is not None
    assert 29 < seconds_left < 40
    assert progress.status_line().startswith("1 of 2 runs done")


def test_in_a_notebook_every_message_stays_and_the_ends_of_trials_replace_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display_module = pytest.importorskip("IPython.display")
    pages: list[str] = []

    class Handle:
        def update(self, page: Any) -> None:
            pages.append(page.data)

    monkeypatch.setattr(display_module, "display", lambda page, display_id: Handle())
    study = Study.from_dict({"name": "x", "seeds": [0, 1, 2], "sections": {"s": {"arms": {"a": {}}}}})
    keys = [trial.recipe.key for trial in study.trials]
    with NotebookStudy(study) as shown:
        shown.print_line("the study has changed since")
        shown.on_plan([Job(trial.recipe, Path("run")) for trial in study.trials], 0)
        shown.on_event(JobEvent(keys[0], "failed", reason="no memory"))
        shown.on_event(JobEvent(keys[1], "finished"))
        shown.on_event(JobEvent(keys[2], "finished"))
        shown.print_line("s: after 3 seeds 1 of 1 contrast decided, none goes on")
    assert "<p>the study has changed since</p><p>1/3  s, a, seed 0: failed (no memory)</p><p>s: after 3" in pages[-1]
    assert "seed 2: finished" in pages[-1]
    assert "seed 1: finished" not in pages[-1]
