"""convolab export."""

import json
from pathlib import Path

import pytest

STUDY = """
name = "two"
seeds = [0, 1]
[recipe.data]
limit = 200
[recipe.model]
name = "shallow_net"
[recipe.training]
epochs = 1
[sections.rates]
arms.low = {"optimizer.lr" = 0.01}
arms.high = {"optimizer.lr" = 0.1}
curves = ["train_loss"]
[[sections.rates.contrasts]]
arm = "high"
baseline = "low"
metric = "final_train_loss"
"""


@pytest.mark.long
def test_a_run_is_exported_for_other_programs_and_for_a_paper(run_cli) -> None:
    run_cli("train", "shallow_net", "--epochs", 1, "--out", "run")
    result = run_cli("export", "run", "--to", "torch", "--out", "net.pt2")
    assert (result.code, "checked on 10 images" in result.out) == (0, True), result.err
    files = json.loads(run_cli("export", "run", "--to", "figures", "--out", "figures", "--json").out)["files"]
    assert files
    assert all(Path(file).is_file() for file in files)
    assert run_cli("export", "run", "--to", "paper", "--out", "paper").code == 0
    assert not Path("run/test.json").exists()  # nothing was tested for it
    Path("mine.pt2").write_text("mine")
    result = run_cli("export", "run", "--to", "torch", "--out", "mine.pt2")
    assert (result.code, Path("mine.pt2").read_text()) == (2, "mine")


@pytest.mark.slow
@pytest.mark.timing
def test_a_study_is_exported_for_a_paper(run_cli) -> None:
    Path("two.toml").write_text(STUDY)
    assert run_cli("study", "two.toml", "--out", "two").code == 0
    assert run_cli("export", "two", "--to", "paper", "--out", "paper").code == 0
    assert "high" in Path("paper/table.tex").read_text()
    assert "4 networks were trained on 200 training images of digits" in Path("paper/methods.md").read_text()
    assert run_cli("export", "two", "--to", "figures", "--out", "figures", "--width", "3.3in").code == 0
    assert Path("figures/rates-train_loss.pdf").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "--to", "onx", "--out", "x"), "unknown format 'onx': did you mean 'onnx'"),
        (("nowhere", "--to", "torch", "--out", "x.pt2"), "nowhere is not a run folder"),
        (("nowhere", "--to", "paper", "--out", "x"), "nowhere is not a run folder"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(run_cli, words: tuple[str, ...], message: str) -> None:
    result = run_cli("export", *words)
    assert (result.code, message in result.err) == (2, True), result.err


def test_the_width_of_figures_and_the_size_of_their_text_are_passed_on_in_points(
    run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[float, ...]] = []

    def export(source: Path, out: Path, *given: float) -> list[Path]:
        sizes.append(given)
        return [out]

    monkeypatch.setattr("convolab.cli.commands.export.open_source", lambda folder: folder)
    monkeypatch.setattr("convolab.reports.paper_figures.export_figures", export)
    words = ("export", "run", "--to", "figures", "--out", "figures")
    for more in ((), ("--width", "3in", "--font-size", "3mm")):
        assert run_cli(*words, *more).code == 0
    assert sizes == [pytest.approx((84 * 72 / 25.4, 8.0)), pytest.approx((216.0, 3 * 72 / 25.4))]
    wrong = run_cli(*words, "--font-size", "large")
    assert (wrong.code, "--font-size large: give a number and its unit" in wrong.err) == (2, True)
