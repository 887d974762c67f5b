"""The average of a network's weights over the steps of a training, which forgets the early ones."""

import torch
from torch import nn


@torch.no_grad()
def update_ema(averaged: nn.Module, net: nn.Module, decay: float, steps_done: int) -> None:
    """Move averaged weights towards the present ones: they keep the fraction `decay` of themselves.

    The decay is warmed up, because early averages say little. What is not a floating-point number is copied.

    >>> averaged, net = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = averaged.weight.data.fill_(1.0), net.weight.data.fill_(0.0)
    >>> update_ema(averaged, net, decay=0.5, steps_done=1000)
    >>> averaged.weight.item()
    0.5
    """
    decay = min(decay, (1 + steps_done) / (10 + steps_done))
    pairs = zip(averaged.state_dict().values(), net.state_dict().values(), strict=True)
    once = {(average.data_ptr(), average.shape): (average, current) for average, current in pairs}  # of tied weights
    for average, current in once.values():
        if average.is_floating_point():
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)
