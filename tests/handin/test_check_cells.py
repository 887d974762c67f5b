"""What the check cells of question 2 refuse: solutions in which one thing is wrong. All parts run on a few random images."""

import copy
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional

import convolab
from convolab.core.errors import LabError
from convolab.handin.homework import Homework
from convolab.handin.notebooks import NotebookCell, build_notebook
from convolab.handin.one_line_errors import one_line_errors

Cells = dict[str, NotebookCell]
Edit = Callable[[str, str, str], None]


class Line:
    """In place of a line that a notebook shows."""

    def update(self, *args: object, **kwargs: object) -> None:
        pass


@pytest.fixture
def cells(homework: Homework) -> Cells:
    return {cell.name: cell for cell in build_notebook(homework, "question2_training", "solution", "digits")}


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the cells above part 1 define, with eight images in place of the dataset."""
    generator = torch.Generator().manual_seed(0)
    pixels, labels = torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8)
    batches = [(pixels[:6], labels[:6]), (pixels[6:], labels[6:])]
    with torch.random.fork_rng():
        yield {
            "copy": copy, "torch": torch, "nn": nn, "F": functional, "CLASSES": 10, "SHAPE": (1, 8, 8), "EPOCHS": 2, "SEED": 0,
            "first_pixels": pixels, "first_labels": labels, "normalize": lambda x: 2 * x - 1, "convolab": convolab,
            "display": lambda *args, **kwargs: Line(), "one_line_errors": one_line_errors, "namedtuple": namedtuple,
            "partial": partial, "DATA": "digits", "train_set": batches, "validation_set": batches, "warnings": warnings,
            "scipy": scipy, "splits": SimpleNamespace(test=batches), "BUDGET": {"seeds": 2},
            "make_loader": lambda dataset, shuffle=False, seed=0: dataset,
        }  # fmt: skip


def run(cells: Cells, names: dict[str, Any], *cell_names: str) -> None:
    """Run cells, each compiled as a file of its own, as a notebook does."""
    for name in cell_names:
        exec(compile(cells[name].text, f"{name}.py", "exec"), names)


def edit(cells: Cells, name: str, right: str, wrong: str) -> None:
    """Put something wrong into a cell."""
    text = cells[name].text
    assert right in text
    cells[name] = NotebookCell("code", name, "gap", text.replace(right, wrong, 1))


LOOP = ("q2-1-loop", "q2-1-check")
SHALLOW = (*LOOP, "q2-2-sequential", "q2-2-class", "q2-2-check", "q2-3-train", "q2-3-check")
CONVOLUTIONAL = (*SHALLOW, "q2-4-class", "q2-4-check", "q2-5-train", "q2-5-check")
NORM = (*CONVOLUTIONAL, "q2-6-class", "q2-6-check", "q2-6-train", "q2-6-curves-check")
RESIDUAL = ("q2-7-class", "q2-7-check", "q2-8-train", "q2-8-check")
TRANSFORMS = ("q2-9-transforms", "q2-9-check", "q2-9-train", "q2-9-train-check")
REST = ("q2-10-train", "q2-10-check", "q2-11-train", "q2-11-check", "q2-12-test", "q2-12-check")


@pytest.mark.slow
def test_the_solution_passes_every_check_and_each_cell_may_be_run_twice(cells: Cells, names: dict[str, Any]) -> None:
    for name in (*NORM, *RESIDUAL, *TRANSFORMS, *REST):
        run(cells, names, name)
        if name != "q2-2-sequential":
            run(cells, names, name)
    assert len(names["candidates"]) == 1 + 1 + 4 + 2 + 2 + 3 + 15


ZERO_GRAD = "        optimizer.zero_grad()\n"
EVALUATE = 'def evaluate(net, criterion, loader):\n    """Returns'
RETURN = "    return loss_sum / count, correct / count\n"


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("", "", ""),
        (ZERO_GRAD, "        net.zero_grad()\n", ""),
        ("        optimizer.step()\n", "        optimizer.step()\n        optimizer.zero_grad()\n", ""),
        (ZERO_GRAD, "", "the gradients of the batches add up"),
        (ZERO_GRAD, "        if count == 0:\n            optimizer.zero_grad()\n", "the gradients of the batches add up"),
        ("def evaluate(", "def evaluate(*_):\n    return 0.0, 0.0\n\n\ndef unused(", r"evaluate: the loss is 0.0000"),
        (RETURN, "    return -1.0, 7.0\n", r"train_one_epoch: the loss is -1.0000"),
        (RETURN, "    return loss_sum / count, 100 * correct / count\n", r"train_one_epoch: the accuracy is 75.0000"),
        (RETURN, "    return loss, correct / count\n", "train_one_epoch: return two numbers; .item()"),
        (" * len(labels)\n        correct", "\n        correct", "train_one_epoch: the loss is"),
        ("loss_sum += criterion(logits, labels).item() * len(labels)", "loss_sum += criterion(logits, labels).item()", "evaluate: the loss is"),
        ("            pixels = transform(pixels)\n", "            pass\n", "train_one_epoch with a transform: the loss"),
        ("            logits = net(normalize(pixels))\n", "            logits = net(pixels)\n", "evaluate: the loss is"),
        ("    net.eval()\n", "", r"put the network into evaluation mode"),
        ("    net.train()\n", "", r"put the network into training mode"),
        ("        optimizer.step()\n", "", "the weights have not changed"),
        ("        loss.backward()\n", "        (-loss).backward()\n", "not by one step against the gradient"),
        ("evaluate(net, criterion, validation_loader)", "evaluate(net, criterion, train_loader)", "fit, validation: the loss"),
        ('"train_loss": train_loss', '"train_loss": validation_loss', "fit, train: the loss"),
        ('"train_accuracy": train_accuracy', '"train_accuracy": 100 * train_accuracy', "fit, train: the accuracy"),
        ('"epoch": epoch', '"epoch": 0', r"fit: the epochs are \[0, 0, 0\]"),
        ("            scheduler.step()\n", "            pass\n", "fit: the learning rates are"),
        ('                "validation_loss": validation_loss,\n', "", r"fit: the history lacks \['validation_loss'\]"),
    ],
)  # fmt: skip
def test_the_loop_is_compared_with_losses_accuracies_and_steps_that_are_known(
    cells: Cells, names: dict[str, Any], right: str, wrong: str, message: str
) -> None:
    edit(cells, "q2-1-loop", right, wrong)
    if not message:
        run(cells, names, *LOOP)
        return
    with pytest.raises(LabError, match=f"^part 1: .*{message}") as caught:
        run(cells, names, *LOOP)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["momentum", "weight_decay"])
def test_sgd_must_have_the_momentum_and_the_weight_decay_of_the_task(
    cells: Cells, names: dict[str, Any], key: str
) -> None:
    edit(cells, "q2-3-train", f", {key}={key.upper()}", "")
    with pytest.raises(LabError, match=f"part 3: make_sgd gives {key} = 0"):
        run(cells, names, *SHALLOW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "cell", "right", "wrong", "message"),
    [
        (CONVOLUTIONAL, "q2-3-train", "net = ShallowNet(SHAPE, CLASSES)", "net = make_sequential()", "part 3: 'shallow' has 0 of ShallowNet"),
        (CONVOLUTIONAL, "q2-4-class", "F.relu(F.max_pool2d(self.conv2(x), 2))", "F.max_pool2d(self.conv2(x), 2)", "part 4: ConvNet.features: other values"),
        (CONVOLUTIONAL, "q2-4-class", ".mean((2, 3))", ".amax((2, 3))", "part 4: ConvNet: other logits"),
        (CONVOLUTIONAL, "q2-5-train", "net = ConvNet(", "net = ShallowNet(", "part 5: 'convolutional' has 0 of ConvNet"),
        (CONVOLUTIONAL, "q2-5-train", "make_sgd(net)", "make_sgd(candidates['3: shallow, SGD'].net)", "its optimizer is that of another network"),
        (CONVOLUTIONAL, "q2-5-train", "train_candidate(5,", "train_candidate(3,", "part 5: 'convolutional' is no candidate: train it by"),
        (NORM, "q2-6-class", "self.norm(F.max_pool2d(self.conv(x), 2))", "F.max_pool2d(self.norm(self.conv(x)), 2)", "part 6: ConvBlock: other values"),
        (NORM, "q2-6-train", "make_conv_net(batch_norm)", "make_conv_net(True)", "part 6, curves: 'SGD, without' has 3 of BatchNorm2d"),
        (NORM, "q2-6-train", '("Adam", make_adam, 1e-4)', '("Adam", make_sgd, 1e-4)', "'Adam, with' was trained with SGD"),
        (NORM, "q2-6-train", "make_sgd, 1e-3", "make_sgd, 1e-2", "'SGD, with' was trained from the rate 0.01"),
        (NORM, "q2-6-train", 'f"batch norm {word}, {name} {lr:g}"', "name", "'SGD, with' is no candidate: train it by"),
        ((*NORM, *RESIDUAL), "q2-7-class", "F.relu(y + self", "F.relu(y) + (self", "part 7: ResidualBlock: other values"),
        ((*NORM, *RESIDUAL), "q2-8-train", "make_residual_net()", "make_conv_net()", "part 8: 'with' has 0 of ResidualBlock in its network"),
        ((*NORM, *RESIDUAL), "q2-8-train", '("without", make_conv_net())', '("without", make_residual_net())', "'without' has 2 of ResidualBlock"),
        ((*NORM, *TRANSFORMS), "q2-9-train", "transform=chosen", "", "part 9, training: 'with' was trained without a transform"),
        ((*NORM, *TRANSFORMS), "q2-9-train", "transform=chosen", "transform=transform", "'without' was trained with a transform"),
        ((*NORM, *TRANSFORMS), "q2-9-train", "    net = make_conv_net()\n", "    net = net if word == 'with' else make_conv_net()\n", "one network that was trained twice"),
        ((*NORM, *TRANSFORMS), "q2-9-transforms", "(2, n)).tolist()", "(2, 1)).expand(2, n).tolist()", "64 images have 1 corners of 25"),
        ((*NORM, *REST), "q2-10-train", "make_sgd(net, 0.03)", "make_sgd(net, 0.01)", "part 10: 'constant' was trained from the rate 0.01"),
        ((*NORM, *REST), "q2-10-train", "gamma=0.1", "gamma=0.5", "part 10: StepLR must cut the rate to a tenth"),
        ((*NORM, *REST), "q2-10-train", "T_max=EPOCHS", "T_max=10**9", "part 10: one more schedule"),
        ((*NORM, *REST), "q2-11-train", 'f"SGD {lr:g}", net, make_sgd(net, lr)', 'f"SGD {lr:g}", net, make_sgd(net, 0.1)', "part 11: 0.3 was trained from the rate 0.1"),
        ((*NORM, *REST), "q2-11-train", "make_adam(net, lr)", "make_sgd(net, lr)", "part 11: 0.03 was trained with SGD"),
        ((*NORM, *REST), "q2-11-train", "STEP_SIZE, gamma)", "STEP_SIZE, 0.5)", "part 11: gamma 1: the rates are"),
        ((*NORM, *REST), "q2-12-test", "best_name = max(", "best_name = min(", "is better on validation"),
        ((*NORM, *REST), "q2-12-test", "make_loader(splits.test))", "make_loader(splits.test)[:1])\ntest_accuracy = 0.123", "part 12: the test: the accuracy is 0.1230"),
    ],
)  # fmt: skip
def test_a_network_that_is_not_what_a_part_asks_for_is_refused_in_one_line(
    cells: Cells, names: dict[str, Any], order: tuple[str, ...], cell: str, right: str, wrong: str, message: str
) -> None:
    edit(cells, cell, right, wrong)
    with pytest.raises(LabError) as caught:
        run(cells, names, *order)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_block_may_call_its_norm_what_it_likes(cells: Cells, names: dict[str, Any]) -> None:
    for name in ("q2-6-class", "q2-7-class"):
        text = cells[name].text.replace("self.norm", "self.bn").replace("self.conv", "self.convolution")
        cells[name] = NotebookCell("code", name, "gap", text)
    run(cells, names, "q2-4-class", "q2-4-check", "q2-6-class", "q2-7-class", "q2-7-check")


@pytest.mark.parametrize("part", [5, 8, 9, 10, 11, 12])
def test_a_part_whose_parts_before_are_open_names_those_to_fill_in_first(
    cells: Cells, names: dict[str, Any], part: int
) -> None:
    run(cells, names, *LOOP)
    names["candidates"] = {}
    with pytest.raises(LabError, match="part 3: there is no 'criterion' yet: fill in and run the cells above"):
        run(cells, names, "q2-3-check")
    check = "q2-9-train-check" if part == 9 else f"q2-{part}-check"
    with pytest.raises(LabError, match=rf"part {part}(, training)?: fill in part \d first"):
        run(cells, names, check)


@pytest.mark.slow
def test_the_residual_part_is_open_while_the_block_is(cells: Cells, names: dict[str, Any], homework: Homework) -> None:
    student = {cell.name: cell for cell in build_notebook(homework, "question2_training", "student", "digits")}
    cells["q2-7-class"] = student["q2-7-class"]
    run(cells, names, *NORM, "q2-7-class")
    edit(cells, "q2-8-train", "make_residual_net()", "make_conv_net()")
    run(cells, names, "q2-8-train")
    with pytest.raises(LabError, match=r"^part 8: fill in part 7 first"):
        run(cells, names, "q2-8-check")


@pytest.mark.slow
def test_one_batch_must_really_be_learned(cells: Cells, names: dict[str, Any]) -> None:
    names |= {"criterion": nn.CrossEntropyLoss(), "batch_pixels": names["first_pixels"]}
    text = cells["q2-6-one-batch"].text.replace(
        "batch_pixels, batch_labels = next(iter(make_loader(train_set, shuffle=True)))",
        "batch_pixels, batch_labels = first_pixels, first_labels",
    )
    cells["q2-6-one-batch"] = NotebookCell("code", "q2-6-one-batch", "gap", text)
    run(cells, names, *LOOP, "q2-6-class", "q2-6-one-batch", "q2-6-one-batch-check")
    edit(cells, "q2-6-one-batch", "    optimizer =", "    return [0.5, 1.0]\n    optimizer =")
    with pytest.raises(LabError, match="fit_one_batch returns 100 %, but the network predicts"):
        run(cells, names, "q2-6-one-batch", "q2-6-one-batch-check")


@pytest.mark.parametrize(
    ("own", "theirs", "interval"),
    [([0.5, 0.5], [0.5, 0.5], "0.0000 to 0.0000"), ([0.5, 0.5], [0.52, 0.52], "-0.0200 to -0.0200"), ([0.5, 0.6], [0.5, 0.5], "")],
)  # fmt: skip
def test_accuracies_that_coincide_are_compared_without_a_warning(
    cells: Cells, names: dict[str, Any], own: list, theirs: list, interval: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names |= {"is_filled_in": lambda part: True, "runs": [0, 1], "own_accuracies": own, "their_accuracies": theirs}
    run(cells, names, "q2-13-check")  # a warning is an error in the tests
    assert f"95 % interval {interval}" in capsys.readouterr().out


def test_the_training_cell_of_a_part_may_be_run_again_and_no_part_replaces_anothers_candidates(
    cells: Cells, names: dict[str, Any]
) -> None:
    names["fit"] = lambda *args: [{"epoch": 1}]
    text = cells["q2-3-train"].text
    exec(text[text.index("Candidate = ") : text.index("torch.manual_seed")], names)
    train = names["train_candidate"]
    names["criterion"] = None
    net = nn.Linear(2, 2)
    for part in (8, 9, 9):
        train(part, "with", net, torch.optim.SGD(net.parameters()))
    assert list(names["candidates"]) == ["8: with", "9: with"]
