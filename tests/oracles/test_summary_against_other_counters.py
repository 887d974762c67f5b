"""Our totals compared with other counters, which are called as in their documentation."""

import contextlib
import io
import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchinfo
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convolab.analysis.summary import summarize_network
from convolab.models.resolve import resolve_model


class NetOfManyLayers(nn.Module):
    """A small network with all layers that the tools count differently."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(4)
        self.act = nn.GELU()
        self.linear = nn.Linear(4, 6)
        self.softmax = nn.Softmax(-1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.depthwise(self.stem(x)))
        x = F.relu(x + torch.add(x, 1).mul(2))
        x = self.pool(F.interpolate(self.up(x), scale_factor=2, mode="bilinear"))
        x = x.flatten(2).transpose(1, 2)  # [N, 16, 4]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.attention(x, x, x)[0]
        x = self.act(self.layer_norm(x))
        x = x @ torch.matmul(x.mT, x)
        q = x[:, None]
        x = F.scaled_dot_product_attention(q, q, q)[:, 0]
        x = self.softmax(self.linear(x))
        return self.head(F.silu(x.mean(1)))


def net_of_many_layers() -> nn.Module:
    with torch.random.fork_rng():
        return NetOfManyLayers().eval()


def network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    if name == "mixed":
        return net_of_many_layers(), (3, 32, 32)
    shape = (3, 224, 224) if "vit" in name or "alexnet" in name else (3, 64, 64)
    with torch.random.fork_rng():
        return resolve_model(name, shape).build().eval(), shape


def by_fvcore(net: nn.Module, images: Tensor) -> int:
    from fvcore.nn import FlopCountAnalysis

    return int(FlopCountAnalysis(net, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def by_torchinfo(net: nn.Module, images: Tensor) -> int:
    from torchinfo import summary

    return summary(net, input_data=images, verbose=0, device="cpu").total_mult_adds


def by_thop(net: nn.Module, images: Tensor) -> int:
    from thop import profile

    return int(profile(net, inputs=(images,), verbose=False)[0])


def by_ptflops(net: nn.Module, images: Tensor) -> int:
    from ptflops import get_model_complexity_info

    with contextlib.redirect_stdout(io.StringIO()):
        return get_model_complexity_info(net, tuple(images.shape[1:]), as_strings=False, print_per_layer_stat=False)[0]


TOOLS = {"fvcore": by_fvcore, "torchinfo": by_torchinfo, "thop": by_thop, "ptflops": by_ptflops}
NETWORKS = [
    "mixed",
    "simple_convnet",
    "torchvision/mobilenet_v2",
    "torchvision/alexnet",
    "timm/vit_tiny_patch16_224",
    "efficientnet_lite0",
]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tool", TOOLS)
def test_the_count_shown_for_a_tool_is_its_own_and_the_differences_add_up(tool: str, name: str) -> None:
    net, shape = network(name)
    cost = summarize_network(net, shape, beside=[tool])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            theirs = TOOLS[tool](net, torch.zeros(1, *shape))
        finally:
            logging.disable(logging.NOTSET)
    (count,) = cost.other_counts
    assert count.macs == theirs, count.problem
    assert cost.macs + sum(difference for _, difference in count.differences) == theirs
    assert all(difference for _, difference in count.differences)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_flop_counter_of_torch_gives_twice_our_macs(name: str) -> None:
    net, shape = network(name)
    net = net.to("meta")
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, *shape, device="meta"))
    assert summarize_network(net, shape).flops == counter.get_total_flops()


def test_torchinfo_counts_the_same_parameters() -> None:
    net, shape = network("torchvision/mobilenet_v2")
    net.features[0].requires_grad_(False)
    theirs = torchinfo.summary(net, input_size=(1, *shape), verbose=0, device="cpu")
    ours = summarize_network(net, shape)
    assert (ours.num_parameters, ours.num_trainable) == (theirs.total_params, theirs.trainable_params)
