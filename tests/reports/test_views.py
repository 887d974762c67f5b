"""How results show themselves in Python and in a notebook."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

import convolab
from convolab.core.display import Displayable
from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.inspection.result import Finding, Panel
from convolab.reports import views
from convolab.training.history import EpochMetrics, History
from convolab.training.recipe import Recipe
from convolab.training.run import Run

EPOCHS = [EpochMetrics(1, 2.0, 0.3, 1.9, 0.35, 0.1, 1.0, 100.0), EpochMetrics(2, 1.0, 0.6, 1.2, 0.55, 0.1, 1.0, 100.0)]


def made_finding() -> Finding:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    detections = [{"box": [0, 0, 4, 4], "confidence": 0.5}]
    return Finding(
        tool="locate",
        summary=("first <line>", "second", "third"),
        metrics={"classes": {"<script>": {"detections": detections}}},
        arrays={"map": torch.eye(3)},
        panels=((Panel(title="an image", image=image),),),
        warnings=("</p> careful",),
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Displayable]:
    """One result of each kind, but the slow ones."""
    run = convolab.train("shallow_net", epochs=1, out=tmp_path_factory.mktemp("results") / "run", log="playback")
    digits = convolab.load("digits")
    return {
        "run": run,
        "recipe": run.recipe,
        "history": run.history,
        "dataset": digits.train,
        "subset": digits.train.subset(torch.arange(30)),
        "evaluation": convolab.evaluate(run.net(), digits.test),
        "summary": convolab.summary(run),
        "finding": made_finding(),
        "playback": run.playback(),
    }


KINDS = ["run", "recipe", "history", "dataset", "subset", "evaluation", "summary", "finding", "playback"]


class Balance(HTMLParser):
    """Checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("br", "img", "meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_result_has_a_short_repr_whole_html_and_rows(results: dict[str, Displayable], kind: str) -> None:
    result = results[kind]
    assert len(repr(result).splitlines()) <= 3
    assert len(repr(result)) <= 400
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == repr(result)
    parser = Balance()
    parser.feed(bundle["text/html"])
    parser.close()
    assert not parser.open
    assert result.rows()
    assert all(isinstance(row, dict) for row in result.rows())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "recipe"])
def test_a_result_is_drawn_and_saved_as_png(results: dict[str, Displayable], kind: str, tmp_path: Path) -> None:
    assert results[kind].save(tmp_path / "result.png") == tmp_path / "result.png"
    with Image.open(tmp_path / "result.png") as image:
        assert min(image.size) > 20
    assert {name.partition("/")[0] for name in results[kind].plot()._repr_mimebundle_()} == {"text", "image"}


@pytest.mark.slow
def test_an_ending_that_is_not_known_is_answered_with_those_that_are(results: dict[str, Displayable], tmp_path) -> None:
    with pytest.raises(LabError, match=r"result.docx: give a name that ends in \.png"):
        results["run"].save(tmp_path / "result.docx")
    with pytest.raises(LabError, match="has no figure"):
        results["recipe"].plot()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_recipe_that_was_saved_is_the_recipe_that_is_read(results: dict[str, Displayable], tmp_path: Path) -> None:
    results["recipe"].save(tmp_path / "recipe.toml")
    assert convolab.Recipe.read(tmp_path / "recipe.toml") == results["recipe"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_ending_that_is_offered_is_written(results: dict[str, Displayable], kind: str, tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        results[kind].save(tmp_path / "result.unknown")
    endings = str(caught.value).rpartition("ends in ")[2].split(", ")
    for ending in endings:
        if ending != ".pt2":
            assert results[kind].save(tmp_path / f"{kind}{ending}").exists()


@pytest.mark.slow
def test_a_class_without_images_has_no_accuracy(results: dict[str, Displayable]) -> None:
    digits = convolab.load("digits").test
    run = results["run"]
    assert isinstance(run, Run)
    rows = convolab.evaluate(run.net(), digits.subset((digits.labels > 0).nonzero().flatten())).rows()
    assert (rows[0]["images"], rows[0]["accuracy"], rows[0]["recall"]) == (0, None, None)
    assert rows[1]["accuracy"] is not None


def test_raw_arrays_keep_a_name_with_a_dot(tmp_path: Path) -> None:
    assert made_finding().save_arrays(tmp_path / "maps_0.5") == tmp_path / "maps_0.5.npz"


def test_hostile_text_is_text_on_the_page() -> None:
    page = made_finding()._repr_html_()
    assert "&lt;/p&gt; careful" in page
    assert "first &lt;line&gt;" in page
    assert "<line>" not in page
    assert views.rows_to_html([{"<b>": "<i>"}]).count("&lt;") == 2


def test_boxes_are_the_rows_of_what_was_located() -> None:
    assert made_finding().rows() == [{"class": "<script>", "box": [0, 0, 4, 4], "confidence": 0.5}]


def test_a_history_without_epochs_says_so() -> None:
    assert repr(History()) == "History(no epoch is done yet)"
    assert "no epoch" in History()._repr_html_()
    assert repr(History(EPOCHS)) == "History(2 epochs, at the end training accuracy 60.00 %, validation 55.00 %)"


def test_rows_become_a_frame_where_pandas_is_installed() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = History(EPOCHS).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["epoch"]) == [1, 2]


def test_in_a_table_text_is_to_the_left_and_numbers_to_the_right() -> None:
    page = views.rows_to_html(
        [{"layer": "conv1", "share": 0.25, "MACs": "1,024"}, {"layer": "-", "share": None, "MACs": "0"}]
    )
    assert '<td style="text-align:left">conv1</td>' in page
    assert page.count("text-align:right") == 6
    assert page.count("text-align:left") == 3


def test_a_long_table_is_cut_and_says_how_much_is_left() -> None:
    assert "and 5 more rows" in views.rows_to_html([{"row": number} for number in range(views.MAX_ROWS + 5)])


@pytest.mark.slow
def test_a_photo_is_a_small_jpeg_and_a_drawing_a_png() -> None:
    noise = torch.randint(0, 256, (400, 600, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    photo = views.ImageFigure(Image.fromarray(noise))
    assert list(photo._repr_mimebundle_()) == ["text/plain", "image/jpeg"]
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    dataset = ImageDataset(images, torch.tensor([0, 1, 0, 1]), ("cat", "dog"), "pets")
    assert list(dataset.plot()._repr_mimebundle_()) == ["text/plain", "image/png"]


def test_what_is_saved_replaces_only_its_own_kind(tmp_path) -> None:
    history, recipe = History([EpochMetrics(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 10.0, "running")]), Recipe()
    for suffix, save in ((".csv", history.save), (".toml", recipe.save)):
        own = tmp_path / f"own{suffix}"
        own.write_text("my own")
        with pytest.raises(LabError, match="choose another name, or delete the file"):
            save(own)
        assert own.read_text() == "my own"
        for _ in range(2):
            save(tmp_path / f"new{suffix}")
    assert Recipe.read(tmp_path / "new.toml") == recipe


@pytest.mark.slow
def test_the_figure_of_a_finding_names_the_network_in_a_notebook(results: dict[str, Displayable]) -> None:
    run = results["run"]
    finding = convolab.explain(torch.zeros(1, 8, 8, dtype=torch.uint8), run, methods="gradient")
    assert finding.net == str(run.folder)
    assert finding.heading.startswith(f"{run.folder}, ")
    assert repr(finding).startswith(f"Finding of explain ({run.folder}): ")
    assert finding.to_dict()["net"] == str(run.folder)


@pytest.mark.slow
def test_a_chart_in_a_notebook_is_no_wider_than_the_page(results: dict[str, Displayable]) -> None:
    drawn = results["run"].plot()._repr_mimebundle_()["image/svg+xml"]
    assert drawn.startswith('<svg style="max-width:100%;height:auto" ')
    assert "viewBox=" in drawn
    assert drawn in results["run"]._repr_html_()
