"""What an evaluation refuses."""

import math

import pytest
import torch
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.training.evaluation import evaluate


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_no_accuracy(value: float) -> None:
    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, value]]).expand(len(x), -1)

    dataset = ImageDataset(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0]), ("a", "b"), "two")
    with pytest.raises(LabError, match="are not all finite numbers"):
        evaluate(Overflows(), dataset)
