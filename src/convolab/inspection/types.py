"""Types of tensors that several modules of inspection share."""

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from convolab.models.feature_head import Logits

__all__ = ["ClassIndices", "Heatmap", "Logits", "Pixels", "SinglePixels", "UInt8Image", "UInt8Images"]

Heatmap = Float[Tensor, "rows columns"]  # raw, with its sign and scale
UInt8Image = UInt8[Tensor, "c h w"]
UInt8Images = UInt8[Tensor, "n c h w"]
SinglePixels = Float[Tensor, "1 c h w"]  # one image in [0, 1]
Pixels = Float[Tensor, "n c h w"]  # images in [0, 1]
ClassIndices = Int64[Tensor, "n"]
