"""Random maps."""

import torch
from torch import Tensor

from convolab.inspection.explain.methods import SaliencyMap


def random_heatmap(seed: int = 0, rows: int = 8, columns: int = 9) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def to_saliency_map(values: Tensor) -> SaliencyMap:
    return SaliencyMap(method="made", title="Made", values=values, signed=True, unit="")
