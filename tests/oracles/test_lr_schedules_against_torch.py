"""Our schedules, as functions of time, give the learning rates of torch's schedulers step by step."""

import pytest
import torch
from torch.optim import lr_scheduler

from convolab.training.lr_schedule import CosineLR, LinearDecayLR, OneCycleLR, StepLR

LENGTHS = [(1, 2), (1, 7), (2, 3), (3, 1), (5, 10), (10, 12), (17, 3), (30, 8), (4, 391)]  # epochs, steps in each


def torch_learning_rates(scheduler: type, steps: int, **options: object) -> list[float]:
    """The learning rates of torch's scheduler before each step, for an optimizer with learning rate 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = scheduler(optimizer, **options), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            schedule.step()
    return rates


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
@pytest.mark.parametrize(("step_size", "gamma"), [(5, 0.1), (1, 0.9), (3, 0.5), (2, 1.0)])
def test_step_is_step_lr_of_torch_stepped_every_epoch(epochs: int, steps: int, step_size: int, gamma: float) -> None:
    theirs = torch_learning_rates(lr_scheduler.StepLR, epochs, step_size=step_size, gamma=gamma)
    for epoch in range(epochs):
        for step in range(steps):
            assert StepLR(step_size=step_size, gamma=gamma).factor(epoch + step / steps, epochs) == pytest.approx(
                theirs[epoch]
            )


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
def test_cosine_is_cosine_annealing_of_torch_stepped_every_step(epochs: int, steps: int) -> None:
    theirs = torch_learning_rates(lr_scheduler.CosineAnnealingLR, epochs * steps, T_max=epochs * steps)
    ours = [CosineLR().factor(epoch + step / steps, epochs) for epoch in range(epochs) for step in range(steps)]
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("epochs", "steps"), LENGTHS)
def test_linear_is_polynomial_lr_of_power_one_of_torch_stepped_every_step(epochs: int, steps: int) -> None:
    theirs = torch_learning_rates(lr_scheduler.PolynomialLR, epochs * steps, total_iters=epochs * steps, power=1.0)
    ours = [LinearDecayLR().factor(epoch + step / steps, epochs) for epoch in range(epochs) for step in range(steps)]
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("epochs", "steps"), [length for length in LENGTHS if length[0] * length[1] > 6])
@pytest.mark.parametrize("options", [{}, {"pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 50.0}])
def test_one_cycle_is_that_of_torch_at_a_time_within_each_step(epochs: int, steps: int, options: dict) -> None:
    # Torch stretches the rise so that its last step has the full rate, and the fall so that the last step has the
    # lowest: its rate in a step is ours at some time within that step; in the fall it is ours at the end of the step.
    schedule, total = OneCycleLR(**options), epochs * steps
    theirs = torch_learning_rates(
        lr_scheduler.OneCycleLR, total, max_lr=1.0, total_steps=total, cycle_momentum=False,
        anneal_strategy="cos", pct_start=schedule.pct_start, div_factor=schedule.div_factor, final_div_factor=schedule.final_div_factor,
    )  # fmt: skip
    for step, rate in enumerate(theirs):
        start, end = schedule.factor(step / steps, epochs), schedule.factor((step + 1) / steps, epochs)
        top = schedule.pct_start * total
        if step >= top - 1:
            assert rate == pytest.approx(end, abs=1e-9)
        else:
            assert start - 1e-9 <= rate <= (end if step + 1 <= top else 1) + 1e-9
