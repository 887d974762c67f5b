"""What the check cells of question 2 refuse: solutions in which one thing is wrong."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from convolab.handin.homework import Homework
from convolab.handin.notebooks import NotebookCell, build_notebook


class Line:
    """In place of a line that a notebook shows."""

    def update(self, *args: object, **kwargs: object) -> None:
        pass


@pytest.fixture
def cells(homework: Homework) -> dict[str, NotebookCell]:
    return {cell.name: cell for cell in build_notebook(homework, "question2_training", "solution", "digits")}


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the cells above have defined, with two images in place of the dataset."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        yield {
            "copy": copy, "torch": torch, "nn": nn, "F": functional, "CLASSES": 10, "SHAPE": (1, 8, 8), "EPOCHS": 2, "SEED": 0,
            "first_pixels": torch.rand(4, 1, 8, 8, generator=generator), "first_labels": torch.tensor([1, 2, 3, 4]),
            "normalize": lambda pixels: pixels, "display": lambda *args, **kwargs: Line(),
        }  # fmt: skip


ZERO_GRAD = "        optimizer.zero_grad()\n"


@pytest.mark.parametrize(
    ("right", "wrong", "passes"),
    [
        ("", "", True),
        (ZERO_GRAD, "", False),
        (ZERO_GRAD, "        net.zero_grad()\n", True),
        (ZERO_GRAD, "        if count == 0:\n            optimizer.zero_grad()\n", False),
        ("        optimizer.step()\n", "        optimizer.step()\n        optimizer.zero_grad()\n", True),
    ],
)
def test_a_loop_must_set_the_gradients_to_zero_for_each_batch(
    cells: dict[str, NotebookCell], names: dict[str, Any], right: str, wrong: str, passes: bool
) -> None:
    loop = cells["q2-1-loop"].text
    assert right in loop
    exec(loop.replace(right, wrong, 1), names)
    if passes:
        exec(cells["q2-1-check"].text, names)
    else:
        with pytest.raises(AssertionError, match="the gradients of the batches add up"):
            exec(cells["q2-1-check"].text, names)


@pytest.mark.parametrize("key", ["momentum", "weight_decay"])
def test_sgd_must_have_the_momentum_and_the_weight_decay_of_the_task(
    cells: dict[str, NotebookCell], names: dict[str, Any], key: str
) -> None:
    source = cells["q2-3-train"].text.split("candidates = {}")[0]
    check = cells["q2-3-check"].text
    names["shallow_history"] = [{"train_loss": 2.0}, {"train_loss": 1.0}]
    exec(source, names)
    exec(check, names)
    exec(source.replace(f", {key}={key.upper()}", ""), names)
    with pytest.raises(AssertionError, match=f"part 3: make_sgd gives {key} = 0"):
        exec(check, names)


def test_a_block_may_call_its_norm_what_it_likes(cells: dict[str, NotebookCell], names: dict[str, Any]) -> None:
    for name in ("q2-6-class", "q2-7-class"):
        exec(cells[name].text.replace("self.norm", "self.bn").replace("self.conv", "self.convolution"), names)
    exec(cells["q2-7-check"].text, names)


@pytest.mark.parametrize("part", [5, 8, 9, 10, 11, 12])
def test_a_part_whose_parts_before_are_open_names_those_to_fill_in_first(
    cells: dict[str, NotebookCell], names: dict[str, Any], part: int
) -> None:
    check = cells["q2-9-train-check" if part == 9 else f"q2-{part}-check"].text
    with pytest.raises(AssertionError, match=rf"part {part}: fill in part \d first"):
        exec(check, {**names, "candidates": {}, "norm_histories": {}})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [(("constant", "step"), "part 10: one more schedule"), (("constant", "step", "exponential"), "")],
)
def test_a_third_schedule_is_needed_and_free(
    cells: dict[str, NotebookCell], names: dict[str, Any], chosen: tuple[str, ...], message: str
) -> None:
    rates = {"constant": [0.03, 0.03], "step": [0.03, 0.003], "exponential": [0.03, 0.02]}
    histories = {name: [{"learning_rate": rate} for rate in rates[name]] for name in chosen}
    names |= {"norm_histories": {"SGD, with": []}, "schedule_histories": histories, "STEP_SIZE": 1}
    if message:
        with pytest.raises(AssertionError, match=message):
            exec(cells["q2-10-check"].text, names)
    else:
        exec(cells["q2-10-check"].text, names)
        histories["step"] = [{"learning_rate": 0.01}, {"learning_rate": 0.001}]
        with pytest.raises(AssertionError, match=r"the figure's title says 0.03"):
            exec(cells["q2-10-check"].text, names)
