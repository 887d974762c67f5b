"""The precision of the network's arithmetic: where bf16 is taken, by a trial on this machine."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median

import torch
from torch import Tensor, nn

from convolab.core.environment import has_native_bf16
from convolab.core.errors import LabError
from convolab.core.rng import isolated_rng
from convolab.training.winograd import WinogradConvolutions

TRIAL_SECONDS = 0.5
WORTHWHILE = 1.2  # times as fast as fp32: less is within what two trials differ by


def resolve_precision(precision: str, device: torch.device, measure: Callable[[], float]) -> str:
    """What a recipe's precision comes to on this machine: "fp32" or "bf16".

    Args:
        precision: `auto` is bf16 where that is faster: on a graphics card if it computes it natively, on a processor by
            a trial. `bf16_forced` is bf16 anywhere.
        device: where the network is.
        measure: how many times as fast as fp32 bf16 is, as `measure_bf16_gain` tells.

    Raises LabError for bf16 on a processor that does not compute it natively, with what the trial gave.
    """
    if precision == "bf16_forced":
        return "bf16"
    if device.type != "cpu":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return precision if precision != "auto" else "bf16" if has_bf16 else "fp32"
    if precision == "bf16" and not has_native_bf16():
        gain = measure()
        raise LabError(
            f"this processor has no bf16 of its own: the network takes {1 / gain:.1f} times as long in it as in fp32. Set "
            "training.precision to fp32, or to bf16_forced"
        )
    if precision == "auto":
        return "bf16" if has_native_bf16() and measure() >= WORTHWHILE else "fp32"
    return precision


def measure_bf16_gain(net: nn.Module, pixels: Tensor, winograd: bool | None = None) -> float:
    """How many times as fast as in fp32 a network goes forward and backward in bf16, in half a second.

    Args:
        net: on a processor; a copy, which is changed. The generators of random numbers are left as they are.
        pixels: a batch for it, float32 [N, C, H, W].
        winograd: whether fp32 has Winograd convolutions.
    """
    with isolated_rng(pixels.device):
        net.train()
        seconds: dict[bool, list[float]] = {False: [], True: []}
        ends_at = time.perf_counter() + TRIAL_SECONDS
        while len(seconds[True]) < 2 or time.perf_counter() < ends_at:  # the first of each is left out
            for is_bf16, taken in seconds.items():
                started = time.perf_counter()
                with arithmetic(pixels.device, is_bf16, winograd):
                    logits = net(pixels)
                logits.float().square().mean().backward()
                taken.append(time.perf_counter() - started)
    return median(seconds[False][1:]) / median(seconds[True][1:])


def arithmetic(device: torch.device, bf16: bool, winograd: bool | None) -> AbstractContextManager[object]:
    """bfloat16 arithmetic with fp32 weights inside, or fp32 with Winograd convolutions, where asked for."""
    if bf16:
        return torch.autocast(device.type, torch.bfloat16)
    return WinogradConvolutions() if winograd else nullcontext()
