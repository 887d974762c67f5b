"""A notebook that is executed again: what is read of it, how exactly it is compared, and when two figures are alike."""

import base64
import io
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convolab.core.environment import processor_name
from convolab.handin.notebook_file import HandedInCell, parse_cell, shorten_cell
from convolab.handin.verify import execute
from convolab.handin.verify.execute import OTHER_MACHINE, SAME_MACHINE, execute_signs, output_differences, pixels_agree
from convolab.handin.verify.fence import Permission

Signs = list[tuple[str, str]]


def notebook(accuracy: float) -> bytes:
    texts = {
        "q-settings": "data = cifar10\nfast = True\ntorch = 2.9.0, 3 threads\n",
        "q-test": f"accuracy = {accuracy:.4f}\n",
    }
    cells = [
        {
            "cell_type": "code", "id": name, "source": "show()", "execution_count": count, "metadata": {},
            "outputs": [{"output_type": "stream", "name": "stdout", "text": text}],
        }
        for count, (name, text) in enumerate(texts.items(), 1)
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


HANDED_IN = notebook(0.9)


@pytest.fixture
def execute_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Signs, dict[str, Any]]]:
    """The signs of a notebook whose execution names, or leaves in the fence's folder, some file; and the job for that."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))  # where trust is recorded
    monkeypatch.setattr("convolab.core.trust._TRUSTED_HERE", set())

    def call(leave: Callable[[Path], object], processors: Collection[str] = ()) -> tuple[Signs, dict[str, Any]]:
        jobs: list[dict[str, Any]] = []

        def run(folder: Path, job: dict[str, Any], permission: Permission) -> dict[str, object]:
            jobs.append(job)
            return {"executed": leave(folder)}

        monkeypatch.setattr(execute, "run_fenced", run)
        cells = [shorten_cell(parse_cell(cell)) for cell in json.loads(HANDED_IN)["cells"]]
        allowed = Permission(trust=True, unfenced=True)
        signs = execute_signs("a.zip", "q.ipynb", HANDED_IN, cells, processors, allowed)
        return [(sign.weight, sign.what) for sign in signs], jobs[0]

    return call


def test_a_notebook_is_executed_with_the_data_the_form_and_the_threads_that_it_printed(execute_again) -> None:
    signs, job = execute_again(lambda folder: "q.ipynb", [processor_name()])
    assert job == {"kind": "execute", "notebook": "q.ipynb", "fast": True, "data": "cifar10", "threads": 3}
    assert signs == [("confirmed", f"executed again: 2 cells show the same, within {SAME_MACHINE:g}")]


def test_numbers_are_compared_closely_on_the_same_processor_only(execute_again) -> None:
    def leave(folder: Path) -> str:
        (folder / "executed.ipynb").write_bytes(notebook(0.91))
        return "executed.ipynb"

    [(weight, what)] = execute_again(leave, [processor_name()])[0]
    assert weight == "sign"
    assert what == "executed again it prints `accuracy = 0.9100`, and `accuracy = 0.9000` was handed in"
    for processors in (["Another One"], [processor_name(), "Another One"], []):
        [(weight, what)] = execute_again(leave, processors)[0]
        assert weight == "confirmed"
        assert f"within {OTHER_MACHINE:g}, as processor, torch or threads differ or are not known" in what


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (lambda folder, other: str(other), "leads out of"),
        (lambda folder, other: f"../{other.parent.name}/{other.name}", "leads out of"),
        (lambda folder, other: (folder / "executed.ipynb").symlink_to(other) or "executed.ipynb", "leads out of"),
        (lambda folder, other: None, "is missing"),
    ],
)
def test_a_result_that_names_a_file_elsewhere_is_not_read(
    execute_again, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, leave: Callable[[Path, Path], object], words: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path.parent))  # so that ../ leads to this test's folder
    other = tmp_path / "other.ipynb"
    other.write_bytes(notebook(0.1234))
    [(weight, what)] = execute_again(lambda folder: leave(folder, other))[0]
    assert weight == "skipped"
    assert words in what
    assert "0.1234" not in what


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """An image whose colors change from left to right and from top to bottom."""
    rows, columns = np.mgrid[:96, :96]
    return np.stack([2 * columns, 2 * rows, rows + columns], axis=2)


@pytest.mark.slow
def test_two_images_are_alike_within_roundings_and_not_if_they_show_something_else(image: np.ndarray) -> None:
    rounded = image + (np.random.default_rng(0).random(image.shape) < 0.25)
    assert pixels_agree(png(image), png(rounded), SAME_MACHINE)
    lighter = image + 3  # as another processor may draw it
    assert not pixels_agree(png(image), png(lighter), SAME_MACHINE)
    assert pixels_agree(png(image), png(lighter), OTHER_MACHINE)
    changed = {
        "flipped": image[:, ::-1],
        "upside down": image[::-1],
        "its half": image[::2, ::2],
        "in other colors": image[..., ::-1],
    }
    alike = [name for name, other in changed.items() if pixels_agree(png(image), png(other), OTHER_MACHINE)]
    assert alike == []
    for payload in (base64.b64encode(b"no image").decode(), "", "a", png(image)[:200]):
        assert not pixels_agree(png(image), payload, OTHER_MACHINE)
        assert not pixels_agree(payload, png(image), OTHER_MACHINE)


def test_the_figure_that_another_execution_draws_otherwise_is_named(image: np.ndarray) -> None:
    def cell(*payloads: str) -> HandedInCell:
        outputs = [{"output_type": "display_data", "data": {"image/png": payload}} for payload in payloads]
        return parse_cell({"cell_type": "code", "id": "q-figure", "metadata": {}, "outputs": outputs})

    own, nearly, other = png(image), png(image + 1), png(image[::-1])
    assert list(output_differences([cell(own, own)], [cell(own, nearly)], OTHER_MACHINE)) == []
    [(name, what)] = output_differences([cell(own, own)], [cell(nearly, other)], OTHER_MACHINE)
    assert (name, what) == ("q-figure", "executed again, its figure 2 is another one")
    [(_, what)] = output_differences([cell(own, own)], [cell(own)], OTHER_MACHINE)
    assert what == "executed again it shows 1 figure, and 2 were handed in"
