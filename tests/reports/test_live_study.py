"""What a person sees while a study or a search runs."""

from pathlib import Path

from convolab.reports.live_study import StudyProgress
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
