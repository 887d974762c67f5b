"""What a person sees while a network trains."""

import errno
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import convolab
from convolab.reports import live
from convolab.reports.notebook import CURVES_SHARE, FIRST_CURVES_SECONDS, MIN_REDRAW_SECONDS, NotebookDisplay
from convolab.training.callbacks import Callbacks
from convolab.training.history import EpochMetrics

nbformat = pytest.importorskip("nbformat", reason="notebooks are not installed: pip install 'convolab[notebook]'")

CELLS = [
    "import convolab",
    "run = convolab.train('shallow_net', epochs=3, lr=0.1, out='run')",
    "run",
    "run.plot()",
    "convolab.train('shallow_net', epoch=3)",
    "convolab.load('digits').train",
    """
import os, signal
from convolab.reports.live import NotebookTraining
before = NotebookTraining.on_epoch
def interrupt(shown, metrics):
    before(shown, metrics)
    os.kill(os.getpid(), signal.SIGINT)
NotebookTraining.on_epoch = interrupt
stopped = convolab.train('shallow_net', epochs=3, lr=0.1, out='stopped')
print(stopped.status, len(stopped.history))
""",
    "NotebookTraining.on_epoch = before; stopped.resume().status",
    """
rates = {"grid": {"optimizer.lr": [0.1, 0.01]}}
recipe = {"model": {"name": "shallow_net"}, "training": {"epochs": 2}}
study = convolab.Study.from_dict({"name": "rates", "seeds": [0], "recipe": recipe, "sections": {"lr": rates}})
result = convolab.run_study(study, "rates")
""",
    "result",
]


@pytest.fixture(autouse=True)
def usual_interrupt() -> Iterator[None]:
    """Python's own handler, also where the tests were started in the background, which makes them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict]]:
    """The outputs of the cells, from a kernel of Jupyter."""
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=300, allow_errors=True, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.long
def test_a_training_in_a_notebook_shows_its_bar_and_its_curves_in_one_place(executed: list[list[dict]]) -> None:
    (shown,) = executed[1]
    page = shown["data"]["text/html"]
    assert '<progress value="1.0000"' in page
    assert "epoch 3/3" in page
    assert page.count("<svg") == 1


@pytest.mark.slow
def test_a_run_and_a_dataset_and_a_figure_draw_themselves_without_the_network(executed: list[list[dict]]) -> None:
    assert "<svg" in executed[2][0]["data"]["text/html"]
    assert executed[2][0]["data"]["text/plain"].startswith("Run('run': shallow_net on digits, finished")
    assert "image/svg+xml" in executed[3][0]["data"]
    assert "data:image/" in executed[5][0]["data"]["text/html"]
    assert "http" not in executed[2][0]["data"]["text/html"].replace("http://www.w3.org/", "")


@pytest.mark.slow
def test_a_wrong_keyword_is_one_line_in_a_notebook(executed: list[list[dict]]) -> None:
    (error,) = executed[4]
    assert error["traceback"] == ["LabError: train has no keyword 'epoch': did you mean 'epochs'?"]


@pytest.mark.slow
def test_the_stop_button_leaves_a_run_that_resumes(executed: list[list[dict]]) -> None:
    printed = "".join(output.get("text", "") for output in executed[6])
    assert "stopped 1" in printed
    assert executed[7][-1]["data"]["text/plain"] == "'finished'"


def test_a_thread_that_gets_no_signals_trains_without_a_handler() -> None:
    seen: list[dict] = []

    def enter() -> None:
        with live.InterruptHandler() as handler:
            seen.append(handler.previous_handlers)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [{}]


def test_the_first_interrupt_asks_for_a_stop_and_the_handlers_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with live.InterruptHandler() as handler:
        signal.raise_signal(signal.SIGINT)
        assert handler.stop_requested()
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err == "convolab: stopping after this step; press again to quit immediately\n"


@pytest.mark.parametrize("inherited", [signal.default_int_handler, signal.SIG_IGN])
def test_a_second_press_of_a_notebooks_stop_button_ends_the_cell_and_not_the_kernel(
    monkeypatch: pytest.MonkeyPatch, inherited: signal.Handlers
) -> None:
    monkeypatch.setattr(live, "is_notebook", lambda: True)
    signal.signal(signal.SIGINT, inherited)
    before = signal.getsignal(signal.SIGINT)
    with live.InterruptHandler():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_epoch_is_one_line() -> None:
    metrics = EpochMetrics(1, 2.0, 0.3, 1.9, 0.35, 0.1, 1.5, 1000.0)
    assert live.epoch_line(metrics, 10) == (
        "epoch 1/10  training loss 2.0000, accuracy 30.00 %  validation loss 1.9000, accuracy 35.00 %  1.5 s, 1,000 images/s"
    )


def test_outside_of_a_notebook_there_are_lines(tmp_path: Path) -> None:
    with live.live_training(3) as shown:
        assert isinstance(shown, live.TrainingBar)


@pytest.mark.slow
def test_a_study_in_a_notebook_shows_its_bar_and_its_trials_curves_in_one_place(executed: list[list[dict]]) -> None:
    (shown,) = executed[8]
    page = shown["data"]["text/html"]
    assert '<progress value="1.0000"' in page
    assert "2 of 2 runs done" in page
    assert page.count("<svg") == 1
    assert executed[9][0]["data"]["text/plain"] == "StudyResult('rates': 2 of 2 runs, 1 section)"
    assert "lr=0.1" in executed[9][0]["data"]["text/html"]


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [FullDisk(), None])
def test_progress_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch, stream) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    epoch = EpochMetrics(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 10.0, "running")
    with live.live_training(1) as shown:
        shown.on_message("a message")
        shown.on_epoch(epoch)


def test_a_bar_moves_while_the_curves_wait_for_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    display_module = pytest.importorskip("IPython.display")
    monkeypatch.setattr(display_module, "display", lambda page, display_id: None)
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    shown = NotebookDisplay("<p>")
    now += FIRST_CURVES_SECONDS
    assert shown.may_draw_curves()
    now += 0.2  # what drawing them takes
    shown.draw("<svg>", started=now - 0.2)
    now += MIN_REDRAW_SECONDS
    assert shown.may_draw()
    assert not shown.may_draw_curves()
    now += 0.2 / CURVES_SHARE
    assert shown.may_draw_curves()


def test_a_program_keeps_its_own_handler_of_term() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        with live.InterruptHandler() as handler:
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
            assert not handler.stop_requested()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_showing_a_training_draws_nothing_from_the_programs_own_generator() -> None:
    code = (
        "import random, sys; random.seed(1); before = random.getstate()\n"
        "from convolab.reports.live import TrainingBar\n"
        "from convolab.reports.live_study import StudyProgress\n"
        "assert 'rich.style' not in sys.modules\n"
        "TrainingBar(1, lambda: False); assert random.getstate() == before\n"
        "StudyProgress(); assert random.getstate() == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_resumed_and_an_extended_run_and_a_fit_are_shown_as_a_training_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = convolab.train("shallow_net", epochs=1, out=tmp_path / "run", callbacks=Callbacks())
    assert capsys.readouterr().err == ""
    run.extend(2, tmp_path / "longer")
    assert "\nepoch 2/2  training loss" in capsys.readouterr().err
    run.extend(2, tmp_path / "silent", callbacks=Callbacks())
    digits = convolab.load("digits")
    net = convolab.build("shallow_net", digits.train.shape, 10)
    convolab.fit(net, digits.train, training=convolab.Training(epochs=1), callbacks=Callbacks())
    assert capsys.readouterr().err == ""
    convolab.fit(net, digits.train, training=convolab.Training(epochs=1))
    assert capsys.readouterr().err.startswith("epoch 1/1  training loss")


@pytest.mark.slow
def test_a_ctrl_c_in_a_run_that_is_resumed_or_extended_leaves_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = convolab.train("shallow_net", epochs=1, out=tmp_path / "run", callbacks=Callbacks())
    monkeypatch.setattr(live.TrainingBar, "on_epoch", lambda *_: signal.raise_signal(signal.SIGINT))
    longer = run.extend(4, tmp_path / "longer")
    assert (longer.status, len(longer.history)) == ("stopped", 2)
    assert (longer.resume().status, len(longer.history)) == ("stopped", 3)
