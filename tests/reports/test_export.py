"""The export of a study: every figure, every table, and a page that shows them."""

import csv
import re
from pathlib import Path

import pytest
from PIL import Image
from support.synthetic_study import CLASSES, synthetic_study

from convolab.core.stats import mean_interval
from convolab.reports import markdown
from convolab.reports.export import export_study, section_folders
from convolab.studies.metrics import Metric
from convolab.studies.results import mean_curve
from convolab.studies.tables import finished_metric_values

pytestmark = pytest.mark.long  # every figure of a study is drawn in three formats


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export_study(synthetic_study(), folder)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_table_is_exported_with_the_numbers_of_the_results(exported) -> None:
    result = synthetic_study()
    section = result.sections[0]
    for row, arm in zip(read_csv(exported / "batch-norm-sgd" / "arms.csv"), section.arms, strict=True):
        interval = mean_interval(list(finished_metric_values(arm, Metric.parse("final_train_loss")).values()))
        assert row["arm"] == arm.name
        assert float(row["final_train_loss"]) == interval.mean
        assert float(row["final_train_loss low"]) == interval.low
    contrasts = read_csv(exported / "batch-norm-sgd" / "contrasts.csv")
    for row, contrast in zip(contrasts, section.contrast_results, strict=True):
        assert float(row["difference"]) == contrast.paired_test.difference.mean
        assert float(row["p_adjusted"]) == contrast.p_adjusted
        assert row["verdict"] == contrast.verdict
    curve = [
        float(row["mean"])
        for row in read_csv(exported / "lr-sgd" / "curves.csv")
        if (row["arm"], row["quantity"]) == ("lr=0.1", "train_loss")
    ]
    assert curve == [interval.mean for _, interval in mean_curve(result.sections[2].arms[2], "train_loss")]
    diverged = read_csv(exported / "lr-sgd" / "arms.csv")[0]
    assert (diverged["arm"], diverged["diverged"], diverged["best_validation_accuracy"]) == ("lr=3", "3", "")
    assert len(read_csv(exported / "runs.csv")) == len(result.study.trials)
    key, trial_result = next(iter(result.trial_results.items()))
    losses = [float(row["validation_loss"]) for row in read_csv(exported / "epochs.csv") if row["recipe_key"] == key]
    assert losses == [epoch.validation_loss for epoch in trial_result.history]
    confusion = read_csv(exported / "confusion.csv")
    counts = [[int(row[f"predicted {name}"]) for name in CLASSES] for row in confusion]
    assert counts == result.best_on_test.test_result.confusion
    assert [row["true"] for row in confusion] == list(CLASSES)


def test_every_figure_of_the_page_is_exported_as_svg_and_png(exported, figures) -> None:
    svgs, pngs = ({path.with_suffix("") for path in exported.rglob(f"*.{kind}")} for kind in ("svg", "png"))
    assert svgs == pngs
    assert len(svgs) == len(figures)
    for stem in svgs:
        svg = stem.with_suffix(".svg").read_text()
        assert svg.count("<path") > 5
        assert "var(" not in svg
        with Image.open(stem.with_suffix(".png")) as image:
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_each_section_has_its_own_folder_whatever_its_name() -> None:
    names = ["a b", "a?b", "A B", "..", ".", "…", "lr=0.1"]
    folders = section_folders(names)
    assert len({folder.casefold() for folder in folders.values()}) == len(names)
    assert all(re.fullmatch(r"[\w+=][\w+=.-]*", folder) for folder in folders.values())


def test_the_exported_page_shows_every_exported_figure_and_every_comment(exported) -> None:
    page = (exported / "README.md").read_text()
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert sorted(linked) == sorted(path.relative_to(exported).as_posix() for path in exported.rglob("*.svg"))
    result = synthetic_study()
    for section in result.sections:
        assert markdown.escape(section.comment) in page
        assert all(markdown.escape(contrast.comment) in page for contrast in section.contrast_results)
    assert markdown.escape(result.best_on_test.comment) in page
    assert all(markdown.escape(note) in page for note in result.notes)
    assert "<script" not in page.replace(r"\<script", "").partition("```toml")[0]


def test_every_link_in_the_overview_of_the_exported_page_has_a_heading(exported) -> None:
    page = (exported / "README.md").read_text()
    headings = {
        markdown.heading_anchor(line.removeprefix("## ")) for line in page.splitlines() if line.startswith("## ")
    }
    links = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(links) == len(synthetic_study().sections) + 1
    assert set(links) <= headings
