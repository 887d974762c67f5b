"""Study files that another version of convolab wrote."""

from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.studies.stored_study import read_stored_study
from convolab.studies.study import Study

FIRST_EDITION = """
name = "old"
seeds = [0]

[recipe]
data = {name = "digits", size = 32, augment = ["flip", "colour:0.2"]}
schedule = {name = "one_cycle", rise = 0.4}
metrics = {train = "exact"}

[sections.period]
change = {"schedule.name" = "step", "data.augment" = ["colour"]}
grid = {"schedule.period" = [2, 3], "metrics.train" = ["running", "exact"]}
metrics = ["seconds_until_train_loss:1"]

[[sections.period.contrasts]]
arm = "period=3, train=running"
against = "period=2, train=running"
metric = "epochs_until_train_loss:1"

[sections.size.arms]
small = {"data.size" = 16}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_study_of_the_first_edition_is_read_with_the_present_names(tmp_path: Path):
    study = read_stored_study(write(tmp_path / "study.toml", FIRST_EDITION))
    assert study.base_recipe.data.augment == ("flip", "color:0.2")
    assert study.base_recipe.schedule.pct_start == 0.4
    assert study.base_recipe.metrics.train == "eval_pass"
    section = study.sections["period"]
    assert section.overrides == {"schedule.name": "step", "data.augment": ["color"]}
    assert section.arms["period=3, train=exact"] == {"schedule.step_size": 3, "metrics.train": "eval_pass"}
    assert list(section.reported_metrics) == ["epochs_to_train_loss:1", "seconds_to_train_loss:1"]
    assert study.sections["size"].arms == {"small": {"data.image_size": 16}}


def test_keys_that_this_version_does_not_know_are_ignored_in_a_stored_study_only(tmp_path: Path):
    study = Study.from_dict({"name": "s", "sections": {"one": {"arms": {"a": {}}}}})
    text = study.to_toml().replace("[sections.one", "[sections.one]\nunknown = 1\n[sections.one", 1)
    path = write(tmp_path / "study.toml", f'unknown = "good"\n{text}')
    assert read_stored_study(path) == study
    with pytest.raises(LabError, match="a study has no key"):
        Study.read(path)


def test_a_stored_study_of_a_later_format_is_refused(tmp_path: Path):
    path = write(tmp_path / "study.toml", "format = 2\nname = 's'\nsections = {one = {arms = {a = {}}}}")
    with pytest.raises(LabError, match="format 2"):
        read_stored_study(path)
