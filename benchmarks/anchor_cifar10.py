"""The anchor of the fast recipe: CIFAR-10 to 94 % in eight epochs, after its published description, on a processor.

    python benchmarks/anchor_cifar10.py --data-dir DIR --seed 0

Jordan 2024, "94% on CIFAR-10 in 3.29 seconds" (arXiv:2404.00498), in its later form with orthogonalized momentum (2.6 s on an
A100, 94.01 % on average). Written from that, in plain PyTorch, without anything of convolab: whitened first layer, convolutions
that start as the identity, norms without scale, flips that alternate, crops of 2 pixels with a mirrored edge, batches of 2,000,
label smoothing of 0.2, rates that fall linearly to zero.

Prints one JSON line: the seconds of training at the end of each epoch (the evaluation is not timed), the test accuracy then, and
that of six views of each image at the end. `--images` and `--epochs` make it shorter, for a first look. As published it computes in
bf16; by default so where the processor has instructions for it, because without them bf16 takes many times as long as fp32.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import processor
from peers import CIFAR10, MEAN, STD
from torch import Tensor, nn

BATCH, SMOOTHING, PADDING = 2000, 0.2, 2
WIDTHS = (64, 256, 256)
BIAS_LR, HEAD_LR, SGD_MOMENTUM = 0.053, 0.67, 0.85
DECAY = 2e-6 * BATCH  # fraction of a parameter of SGD that is removed at each step
FILTER_LR, FILTER_MOMENTUM = 0.24, 0.6
WHITENING_EPOCHS = 3  # in which the first layer's biases are learned


class Block(nn.Module):
    """Convolution, pooling, norm, GELU; convolution, norm, GELU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class AnchorNet(nn.Module):
    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        self.whiten.weight.copy_(whitening_filters(images))
        self.blocks = nn.Sequential(*(Block(*pair) for pair in zip((24, *WIDTHS[:-1]), WIDTHS, strict=True)))
        self.head = nn.Linear(WIDTHS[-1], 10, bias=False)
        self.head.weight.data /= self.head.weight.data.std()

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.gelu(self.whiten(x)))
        return self.head(F.max_pool2d(x, 3).flatten(1)) / WIDTHS[-1]


def whitening_filters(images: Tensor) -> Tensor:
    """The eigenvectors of the covariance of 2x2 patches, each over the root of its variance, and their negatives."""
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
    return torch.cat([filters, -filters])


def orthogonal(matrix: Tensor) -> Tensor:
    """Three of Newton's and Schulz's steps, in the precision of the matrix."""
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(3):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Filters:
    """The filters of the blocks, under orthogonalized momentum; none has more rows than columns."""

    def __init__(self, weights: list[nn.Parameter], precision: torch.dtype) -> None:
        self.weights, self.precision = weights, precision
        self.momenta = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, factor: float) -> None:
        for weight, momentum in zip(self.weights, self.momenta, strict=True):
            assert weight.grad is not None
            momentum.mul_(FILTER_MOMENTUM).add_(weight.grad)
            gradient = weight.grad.add(momentum, alpha=FILTER_MOMENTUM)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            direction = orthogonal(gradient.flatten(1).to(self.precision)).to(weight.dtype)
            weight.sub_(FILTER_LR * factor * direction.view_as(weight))


def crop(padded: Tensor, side: int) -> Tensor:
    """Each image at an offset of its own."""
    shifts = torch.randint(2 * PADDING + 1, (len(padded), 2))
    result = torch.empty(len(padded), 3, side, side).contiguous(memory_format=torch.channels_last)
    for y in range(2 * PADDING + 1):
        for x in range(2 * PADDING + 1):
            chosen = (shifts == torch.tensor([y, x])).all(1)
            result[chosen] = padded[chosen, :, y : y + side, x : x + side]
    return result


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, precision: torch.dtype, views: int = 1) -> float:
    """Of the network on its own, or of its mean over six views."""

    def logits(x: Tensor) -> Tensor:
        return net(x.contiguous(memory_format=torch.channels_last)).float()

    def both(x: Tensor) -> Tensor:
        return 0.5 * logits(x) + 0.5 * logits(x.flip(3))

    net.eval()
    correct = 0
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
            if views == 1:
                predicted = logits(x)
            else:
                padded = F.pad(x, (1,) * 4, "reflect")
                shifted = both(padded[:, :, :-2, :-2]) + both(padded[:, :, 2:, 2:])
                predicted = 0.5 * both(x) + 0.25 * shifted
            correct += int((predicted.argmax(1) == y).sum())
    net.train()
    return correct / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds cifar-10-batches-py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, help="train on this many only")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16" if "bf16" in processor() else "fp32")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    precision = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.precision]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def read(train: bool) -> tuple[Tensor, Tensor]:
        data = CIFAR10(options.data_dir, train=train)
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).float().div(255)
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last), torch.tensor(data.targets)

    (images, labels), test = read(train=True), read(train=False)
    if options.images:
        chosen = torch.randperm(len(images))[: options.images]
        images, labels = images[chosen], labels[chosen]

    started = time.perf_counter()
    net = AnchorNet(images[:5000]).to(memory_format=torch.channels_last)
    norms = [p for block in net.blocks for p in (block.norm1.bias, block.norm2.bias)]
    sgd = torch.optim.SGD(
        [
            {"params": [net.whiten.bias], "lr": BIAS_LR, "weight_decay": DECAY / BIAS_LR},
            {"params": norms, "lr": BIAS_LR, "weight_decay": DECAY / BIAS_LR},
            {"params": [net.head.weight], "lr": HEAD_LR, "weight_decay": DECAY / HEAD_LR},
        ],
        lr=BIAS_LR,
        momentum=SGD_MOMENTUM,
        nesterov=True,
    )
    filters = Filters([p for p in net.blocks.parameters() if p.ndim == 4], precision)
    flipped = torch.where((torch.rand(len(images)) < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
    padded = F.pad(flipped, (PADDING,) * 4, "reflect")
    steps_per_epoch = len(images) // BATCH
    steps, whitening_steps = options.epochs * steps_per_epoch, WHITENING_EPOCHS * steps_per_epoch
    seconds = time.perf_counter() - started
    epochs = []
    for epoch in range(options.epochs):
        started = time.perf_counter()
        epoch_images = crop(padded, images.shape[2])
        if epoch % 2:
            epoch_images = epoch_images.flip(3)
        order = torch.randperm(len(images))
        for index in range(steps_per_epoch):
            step = epoch * steps_per_epoch + index
            batch = order[index * BATCH : (index + 1) * BATCH]
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                logits = net(epoch_images[batch].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=SMOOTHING, reduction="sum")
            net.zero_grad(set_to_none=True)
            loss.backward()
            factor = 1 - step / steps
            rates = (BIAS_LR * max(0.0, 1 - step / whitening_steps), BIAS_LR * factor, HEAD_LR * factor)
            for group, rate in zip(sgd.param_groups, rates, strict=True):
                group["lr"] = rate
            if step >= whitening_steps:
                net.whiten.bias.grad = None
            sgd.step()
            filters.step(factor)
        seconds += time.perf_counter() - started
        epochs.append({"seconds": seconds, "test_accuracy": accuracy(net, *test, precision)})
    result = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "precision": options.precision,
        "seed": options.seed,
        "images": len(images),
        "seconds": seconds,
        "test_accuracy": epochs[-1]["test_accuracy"],
        "test_accuracy_of_6_views": accuracy(net, *test, precision, views=6),
        "epochs": epochs,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
