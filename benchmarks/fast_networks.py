"""The fast recipe's network, without one of its ideas each: networks of one's own, for fast_ideas.toml."""

from torch import nn

from convolab.models.whitened_convnet import DoubleConvBlock, WhitenedConvnet
from convolab.models.zoo import ImageShape


class LearnedFirstLayer(WhitenedConvnet):
    """With a first layer that is drawn at random and learned, as any other."""

    def __init__(self, shape: ImageShape, classes: int) -> None:
        super().__init__(shape, classes)
        whiten = self.features.get_submodule("whiten")
        assert isinstance(whiten, nn.Conv2d)
        self.features.add_module("whiten", nn.Conv2d(whiten.in_channels, whiten.out_channels, 2))

    def initialize_from_images(self, pixels: object) -> None:
        """Nothing: the first layer is learned."""


class RandomFilters(WhitenedConvnet):
    """With 3x3 convolutions that start at random, not as the identity."""

    def __init__(self, shape: ImageShape, classes: int) -> None:
        super().__init__(shape, classes)
        for block in self.features:
            if isinstance(block, DoubleConvBlock):
                for name in ("conv1", "conv2"):
                    conv = block.get_submodule(name)
                    assert isinstance(conv, nn.Conv2d)
                    block.add_module(name, nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False))
