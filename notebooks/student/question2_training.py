# %% [markdown] name="q2-title"
# # Question 2: train networks, written from scratch
#
# Work from top to bottom. Each part has a task, a cell for your code, a cell that checks it, a figure and your comment.
# The networks and the training loop are yours: plain PyTorch, to show and to explain. convolab reads the images,
# draws the curves, and trains the same recipe once more at the end, as a second witness.
#
# When all is done: restart the kernel, run all cells in order, and save. Then `convolab handin check .` lists what is
# still open.

# %% name="q2-install"
import importlib.util
import subprocess
import sys

# Where convolab is missing, as in Colab: what pip installs. It is not published yet, so give the wheel file or the folder
# of a checkout, such as "/content/convolab-0.1.0-py3-none-any.whl[notebook]" after you have uploaded that file.
CONVOLAB = ""

if importlib.util.find_spec("convolab") is None:
    assert CONVOLAB, "convolab is not installed: write into CONVOLAB above what to install"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", CONVOLAB], check=True)

# %% name="q2-settings"
import copy
import os
import warnings
from collections import namedtuple
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin while they wait are slow

import scipy.stats
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import nn
from torch.utils.data import DataLoader, random_split

import convolab
from convolab.core.stats import wilson_interval
from convolab.handin.figures import plot_bars, plot_curves
from convolab.handin.one_line_errors import one_line_errors
from convolab.training.callbacks import Callbacks

DATA = "digits"  # or "cifar10"
DATA_DIR = None  # the folder that holds the images; None: $CONVOLAB_DATA, or convolab's own folder
FAST = False  # True: a short run that only shows whether all works

DATA = os.environ.get("CONVOLAB_HOMEWORK_DATA", DATA)
FAST = os.environ.get("CONVOLAB_FAST", "1" if FAST else "0") == "1"
BUDGETS = {'digits': {'limit': 1438, 'epochs': 20, 'batch_size': 64, 'seeds': 4, 'small_epochs': 15},
 'digits-fast': {'limit': 600, 'epochs': 3, 'batch_size': 64, 'seeds': 2, 'small_epochs': 3},
 'cifar10': {'limit': 10000, 'epochs': 6, 'batch_size': 128, 'seeds': 3, 'small_epochs': 10},
 'cifar10-fast': {'limit': 1000, 'epochs': 2, 'batch_size': 128, 'seeds': 2, 'small_epochs': 1}}
BUDGET = BUDGETS[f"{DATA}-fast" if FAST else DATA]
EPOCHS, BATCH_SIZE, SEED = BUDGET["epochs"], BUDGET["batch_size"], 0
print(f"data = {DATA}\nfast = {FAST}\ntorch = {torch.__version__}, {torch.get_num_threads()} threads")
BUDGET

# %% [markdown] name="q2-data-text"
# ## The images
# `convolab.load` gives a training and a test set. Both are `torch.utils.data.Dataset`s: `dataset[i]` is an image
# (uint8, [channels, height, width]) and its label. A tenth of the training images is held out for validation. The test
# images are used once, in part 12.

# %% name="q2-data"
splits = convolab.load(DATA, DATA_DIR)
SHAPE, CLASSES = splits.train.shape, len(splits.train.classes)
limit = min(BUDGET["limit"], len(splits.train))
num_validation = limit // 10
train_set, validation_set, _ = random_split(
    splits.train,
    [limit - num_validation, num_validation, len(splits.train) - limit],
    generator=torch.Generator().manual_seed(SEED),
)
print(f"{len(train_set)} images to train on, {len(validation_set)} to validate, {len(splits.test)} to test")
splits.train.plot()

# %% name="q2-loaders"
def collate(samples):
    """A batch of samples of a dataset. Returns pixels in [0, 1], float32 [N, C, H, W], and labels, int64 [N]."""
    pixels = torch.stack([image for image, _ in samples]).float() / 255
    pixels = pixels.contiguous(memory_format=torch.channels_last)  # convolutions on a processor are faster so
    return pixels, torch.tensor([label for _, label in samples])


def make_loader(dataset, shuffle=False, seed=SEED):
    """The batches of a dataset; the seed decides their order. A last batch of one image is left out."""
    generator = torch.Generator().manual_seed(seed)
    is_single = len(dataset) % BATCH_SIZE == 1
    return DataLoader(dataset, BATCH_SIZE, shuffle, generator=generator, collate_fn=collate, drop_last=is_single)


pixels = torch.cat([pixels for pixels, _ in make_loader(train_set)])
MEAN, STD = pixels.mean((0, 2, 3)).view(-1, 1, 1), pixels.std((0, 2, 3)).view(-1, 1, 1)


def normalize(pixels):
    """Pixels in [0, 1] with mean 0 and standard deviation 1 in each channel, by the training images' statistics."""
    return (pixels - MEAN) / STD


first_pixels, first_labels = next(iter(make_loader(train_set)))
first_pixels.shape, first_labels[:10]

# %% [markdown] name="q2-1-text"
# ## 1. A training loop for any network
# Write three functions. `train_one_epoch` takes one gradient step for each batch. `evaluate` measures the mean loss and
# the accuracy, and changes nothing. `fit` calls both for each epoch and notes the results. The network gets
# `normalize(pixels)`; a transform, if there is one, comes before that.

# %% name="q2-1-loop" tags=["gap"]
def train_one_epoch(net, criterion, optimizer, loader, transform=None):
    """Train for one epoch. Returns the mean loss and the accuracy over its images, while the weights change."""
    # TODO: training mode; for each batch: transform, logits, loss, gradient, step; add up loss and hits
    ...


def evaluate(net, criterion, loader):
    """Returns the mean loss and the accuracy over the images of a loader. The network does not change."""
    # TODO: evaluation mode, no gradients; add up loss and hits over all batches
    ...


def fit(net, criterion, optimizer, train_loader, validation_loader, epochs, scheduler=None, transform=None, name=""):
    """Train for some epochs. Returns a list with a dict for each epoch; a scheduler makes a step after each epoch.

    The keys are epoch, learning_rate, train_loss, train_accuracy, validation_loss and validation_accuracy.
    """
    history = []
    line = display({"text/plain": name}, raw=True, display_id=True)

    def show(text):
        """Show a text in place of the one before."""
        line.update({"text/plain": text}, raw=True)

    # TODO: for each epoch: train, evaluate, append a dict to history, step the scheduler; show(text) how it goes
    ...
    return history

# %% name="q2-1-check" tags=["check"]
def measure(net, batches):
    """The loss and the accuracy over all images of some batches at once."""
    pixels, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    with torch.no_grad():
        logits = net(normalize(pixels))
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def assert_equal_results(name, result, expected):
    """Assert that a result is a loss and an accuracy, and that both are as expected."""
    assert isinstance(result, tuple) and len(result) == 2, f"{name}: return the mean loss and the accuracy"
    assert all(isinstance(number, float | int) for number in result), (
        f"{name}: return two numbers; .item() makes one of a tensor"
    )
    assert abs(result[0] - expected[0]) < 1e-3, (
        f"{name}: the loss is {result[0]:.4f}, wanted {expected[0]:.4f}: the mean over all images, of batches that differ "
        "in size; the network gets normalize(pixels)"
    )
    assert abs(result[1] - expected[1]) < 1e-4, (
        f"{name}: the accuracy is {result[1]:.4f}, wanted {expected[1]:.4f}: the fraction of all images that are "
        "predicted right"
    )


with one_line_errors("part 1"):
    torch.manual_seed(0)
    criterion_1 = nn.CrossEntropyLoss()
    probe = nn.Sequential(nn.Flatten(), nn.Linear(first_pixels[0].numel(), CLASSES))
    with torch.no_grad():
        right = probe(normalize(first_pixels)).argmax(1)
    wrong = (right + 1) % CLASSES
    cut = len(first_pixels) // 4
    batches = [(first_pixels[cut:], right[cut:]), (first_pixels[:cut], wrong[:cut])]  # a large batch and a small one

    unsure = nn.Sequential(*probe, nn.Dropout(0.5))
    weights_before = copy.deepcopy(probe.state_dict())
    measured = [evaluate(unsure.train(), criterion_1, batches) for _ in range(2)]
    assert measured[0] is not None, "evaluate: return the mean loss and the accuracy"
    assert measured[0] == measured[1], (
        "evaluate: two calls differ; put the network into evaluation mode with net.eval()"
    )
    assert_equal_results("evaluate", measured[0], measure(probe, batches))
    assert torch.equal(probe[1].weight, weights_before["1.weight"]), "evaluate: it changed the weights"

    still_sgd = torch.optim.SGD(probe.parameters(), lr=0.0)  # the weights stay, so the results are known
    result = train_one_epoch(probe, criterion_1, still_sgd, batches)
    assert_equal_results("train_one_epoch", result, measure(probe, batches))
    darker = [(pixels / 2, labels) for pixels, labels in batches]
    result = train_one_epoch(probe, criterion_1, still_sgd, batches, lambda pixels: pixels / 2)
    assert_equal_results("train_one_epoch with a transform", result, measure(probe, darker))
    gradients = []
    for num_batches in (1, 2):  # at rate 0 both batches have the same gradient
        probe.zero_grad()
        train_one_epoch(probe, criterion_1, still_sgd, num_batches * batches[:1])
        gradients.append(torch.zeros(()) if probe[1].weight.grad is None else probe[1].weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-6), (
        "train_one_epoch: the gradients of the batches add up; set them to zero before each backward()"
    )

    probe_sgd = torch.optim.SGD(probe.parameters(), lr=0.1)
    loss = criterion_1(probe(normalize(first_pixels)), wrong)
    (gradient,) = torch.autograd.grad(loss, probe[1].weight)
    train_one_epoch(unsure.eval(), criterion_1, still_sgd, batches)
    assert unsure.training, "train_one_epoch: put the network into training mode with net.train()"
    train_one_epoch(probe, criterion_1, probe_sgd, [(first_pixels, wrong)])
    assert not torch.equal(probe[1].weight, weights_before["1.weight"]), "train_one_epoch: the weights have not changed"
    assert torch.allclose(probe[1].weight, weights_before["1.weight"] - 0.1 * gradient, rtol=1e-3, atol=1e-5), (
        "train_one_epoch: the weights have changed, but not by one step against the gradient of the loss for each batch"
    )

    history = fit(probe, criterion_1, still_sgd, batches, batches[1:], 1, None, lambda pixels: pixels / 2, "rate 0")
    keys = ["epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
    assert len(history) == 1, f"fit: the history has {len(history)} entries after 1 epoch"
    missing = [key for key in keys if key not in history[0]]
    assert not missing, f"fit: the history lacks {missing}"
    for kind, expected in (("train", measure(probe, darker)), ("validation", measure(probe, batches[1:]))):
        assert_equal_results(f"fit, {kind}", (history[0][f"{kind}_loss"], history[0][f"{kind}_accuracy"]), expected)
    steps = torch.optim.lr_scheduler.StepLR(probe_sgd, step_size=1, gamma=0.5)
    history = fit(probe, criterion_1, probe_sgd, batches, batches, 3, steps, name="check")
    epochs, rates = [entry["epoch"] for entry in history], [entry["learning_rate"] for entry in history]
    assert epochs == [1, 2, 3], f"fit: the epochs are {epochs}, wanted [1, 2, 3]"
    assert rates == [0.1, 0.05, 0.025], f"fit: the learning rates are {rates}; step the scheduler after each epoch"
    last = history[2]["validation_loss"], history[2]["validation_accuracy"]
    assert_equal_results("fit, validation after the last epoch", last, measure(probe, batches))
    print("The loop trains, evaluates and follows the scheduler; its losses and accuracies are right.")

# %% [markdown] name="q2-2-text"
# ## 2. A shallow network as a class
# Below is a network as `nn.Sequential`. Write the same network as a class, with `__init__` and `forward`.

# %% name="q2-2-sequential"
def make_sequential():
    """One hidden layer of 128 units on the flattened image."""
    inputs = SHAPE[0] * SHAPE[1] * SHAPE[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, CLASSES))


make_sequential()

# %% name="q2-2-class" tags=["gap"]
class ShallowNet(nn.Module):
    """The network of `make_sequential` as a class: [N, C, H, W] -> logits [N, classes]."""

    def __init__(self, shape, classes, hidden=128):
        super().__init__()
        # TODO: the two linear layers
        ...

    def forward(self, x):
        # TODO: flatten, first layer, ReLU, second layer
        ...

# %% name="q2-2-check" tags=["check"]
with one_line_errors("part 2"):
    sequential, shallow = make_sequential(), ShallowNet(SHAPE, CLASSES)
    shapes = [tuple(p.shape) for p in shallow.parameters()]
    expected_shapes = [tuple(p.shape) for p in sequential.parameters()]
    assert shapes == expected_shapes, f"ShallowNet: its parameters have the shapes {shapes}, wanted {expected_shapes}"
    for own, given in zip(shallow.parameters(), sequential.parameters(), strict=True):
        own.data.copy_(given)
    logits = shallow(first_pixels)
    assert isinstance(logits, torch.Tensor), "ShallowNet.forward: return the logits"
    assert torch.equal(logits, sequential(first_pixels)), (
        "ShallowNet: same weights, but other logits than the Sequential"
    )
    print(f"Both have {sum(p.numel() for p in shallow.parameters()):,} parameters and the same logits, bit for bit.")

# %% [markdown] name="q2-3-text"
# ## 3. Train it with SGD
# Choose the loss for labels of several classes. Choose stochastic gradient descent with momentum 0.9 and weight decay
# 0.0005: `MOMENTUM` and `WEIGHT_DECAY` below. Write down in your comment why the loss is the right one, and what it takes
# as input.
#
# `train_candidate` trains a network and keeps it under the number of its part and a name that you choose. Train all
# networks of the parts 3 to 11 by it, and give each one of a part its own name: part 12 chooses among them.

# %% name="q2-3-train" tags=["gap"]
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
# TODO: the loss, and a function that makes the optimizer for a network
criterion = ...


def make_sgd(net, lr=LR):
    """SGD with MOMENTUM and WEIGHT_DECAY: an optimizer of the network's parameters."""
    ...


Candidate = namedtuple("Candidate", "net history optimizer scheduler transform")
candidates = {}  # "part: name" -> Candidate; part 12 chooses among them


def train_candidate(part, name, net, optimizer, scheduler=None, transform=None, seed=SEED):
    """Train a network with the loop above, keep it as the candidate "part: name", and return its history.

    Give each network of a part a name of its own. When a part is run again, its candidates are replaced.
    """
    name = f"{part}: {name}"
    loaders = make_loader(train_set, shuffle=True, seed=seed), make_loader(validation_set)
    history = fit(net, criterion, optimizer, *loaders, EPOCHS, scheduler, transform, name)
    candidates[name] = Candidate(net, history, optimizer, scheduler, transform)
    return history


# TODO: train_candidate(3, "shallow, SGD", ...) with a ShallowNet made after torch.manual_seed(SEED)
shallow_history = ...

# %% name="q2-3-check" tags=["check"]
def is_filled_in(part):
    """Whether a part has trained a candidate."""
    return any(name.startswith(f"{part}: ") for name in candidates)


def find_candidates(part, histories, wanted):
    """The candidate of each history, by the same keys. Asserts that each was trained as a candidate of the part."""
    assert isinstance(histories, dict), "not filled in yet: a dict of histories is wanted"
    missing = [key for key in wanted if histories.get(key) in (None, ...)]
    assert not missing, f"not filled in yet: there is no history of {missing}"
    found = {}
    for key, history in histories.items():
        own = [c for name, c in candidates.items() if c.history is history and name.startswith(f"{part}: ")]
        assert own, (
            f"{key!r} is no candidate: train it by train_candidate({part}, NAME, ...), each under a NAME of its own"
        )
        assert len(history) == EPOCHS, f"{key!r} has {len(history)} entries, wanted one for each of {EPOCHS} epochs"
        trained = {id(p) for group in own[0].optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in own[0].net.parameters()}, f"{key!r}: its optimizer is that of another network"
        found[key] = own[0]
    assert len({id(candidate.net) for candidate in found.values()}) == len(found), (
        "two of them are one network that was trained twice: make a new network for each"
    )
    return found


def assert_trained(key, candidate, blocks, optimizer, rate):
    """Assert how many modules of some classes a candidate has, and how it was trained."""
    names = [type(module).__name__ for module in candidate.net.modules()]
    for name, count in blocks.items():
        assert names.count(name) == count, f"{key!r} has {names.count(name)} of {name} in its network, wanted {count}"
    own = type(candidate.optimizer).__name__
    assert own == optimizer, f"{key!r} was trained with {own}, wanted {optimizer}"
    start = candidate.history[0]["learning_rate"]
    assert abs(start - rate) < 1e-9, f"{key!r} was trained from the rate {start:g}, wanted {rate:g}"


with one_line_errors("part 3"):
    assert isinstance(criterion, nn.Module), "criterion is not filled in yet; give a loss of torch.nn"
    wrong, right = torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0]])
    label = torch.tensor([1])
    assert criterion(right, label) < criterion(wrong, label), "the loss must be smaller for the right class"
    assert abs(criterion(torch.zeros(1, 10), label) - 2.302585) < 1e-4, "of 10 equal logits the loss is log 10"
    group = getattr(make_sgd(nn.Linear(2, 2)), "param_groups", [{}])[0]
    for key, wanted in (("lr", LR), ("momentum", MOMENTUM), ("weight_decay", WEIGHT_DECAY)):
        assert group.get(key) == wanted, f"make_sgd gives {key} = {group.get(key)}, wanted {wanted:g}"
    found = find_candidates(3, {"shallow": shallow_history}, ["shallow"])
    assert_trained("shallow", found["shallow"], {"ShallowNet": 1}, "SGD", LR)
    assert shallow_history[-1]["train_loss"] < shallow_history[0]["train_loss"], "the training loss does not fall"
    print("The shallow network trains.")

# %% [markdown] name="q2-3-comment" tags=["comment"]
# > **Your comment.** Why is this loss the right one? What does it take as input, and what is its value at the start?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-4-text"
# ## 4. A convolutional network from a table
#
# | layer | what it does | size of the result |
# |---|---|---|
# | 1 | convolution 3x3, padding 1, 16 channels; max pooling 2x2; ReLU | 16 x H/2 x W/2 |
# | 2 | convolution 3x3, padding 1, 32 channels; max pooling 2x2; ReLU | 32 x H/4 x W/4 |
# | 3 | convolution 3x3, padding 1, 64 channels; max pooling 2x2; ReLU | 64 x H/8 x W/8 |
# | 4 | mean over the map; linear layer to the classes | classes |

# %% name="q2-4-class" tags=["gap"]
class ConvNet(nn.Module):
    """Three convolutions with pooling, then a mean over the map and one linear layer: see the table."""

    def __init__(self, shape, classes):
        super().__init__()
        # TODO: three convolutions and a linear layer
        ...

    def features(self, x):
        """The last feature map, [N, 64, H/8, W/8]."""
        # TODO: convolution, pooling, ReLU, three times
        ...

    def forward(self, x):
        # TODO: the features, their mean over height and width, the linear layer
        ...

# %% name="q2-4-check" tags=["check"]
def cells_2x2(x):
    """The four values of each cell of 2x2: [N, C, H, W] -> [N, C, H/2, W/2, 4]."""
    return x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)


with one_line_errors("part 4"):
    conv_net = ConvNet(SHAPE, CLASSES)
    num_parameters = sum(p.numel() for p in conv_net.parameters())
    expected_number = convolab.summary("simple_convnet", SHAPE).num_parameters + 16 + 32 + 64 - 2 * (16 + 32 + 64)
    assert num_parameters == expected_number, (
        f"ConvNet has {num_parameters} parameters; the table needs {expected_number}"
    )
    features = conv_net.features(first_pixels)
    map_shape = getattr(features, "shape", None)
    expected_map = (len(first_pixels), 64, SHAPE[1] // 8, SHAPE[2] // 8)
    assert map_shape == expected_map, f"ConvNet.features gives {map_shape}; the table needs {expected_map}"
    logits = conv_net(first_pixels)
    logits_shape = getattr(logits, "shape", None)
    assert logits_shape == (len(first_pixels), CLASSES), f"ConvNet gives {logits_shape}; give one logit per class"
    convolutions = [m for m in conv_net.modules() if isinstance(m, nn.Conv2d)]
    linears = [m for m in conv_net.modules() if isinstance(m, nn.Linear)]
    x = torch.rand(4, SHAPE[0], 2 * SHAPE[1], 2 * SHAPE[2])  # larger, so that the last map has several cells
    features, logits = conv_net.features(x), conv_net(x)
    sizes = [m.kernel_size for m in convolutions], len(linears)
    assert sizes == ([(3, 3)] * 3, 1), (
        f"ConvNet has kernels and linear layers {sizes}; the table needs three 3x3, and one"
    )
    expected = x
    for convolution in convolutions:
        expected = F.conv2d(expected, convolution.weight, convolution.bias, padding=1)
        expected = cells_2x2(expected).amax(-1).clamp(min=0)
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-5), "ConvNet.features: other values than by the table"
    expected = linears[0](expected.flatten(2).mean(2))
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-5), "ConvNet: other logits than by the table"
    print(f"The network is that of the table, with {num_parameters:,} parameters.")

# %% [markdown] name="q2-5-text"
# ## 5. Both with SGD
# Train the convolutional network with the same optimizer, loss and number of epochs. Draw the curves of both. What do
# you see?

# %% name="q2-5-train" tags=["gap"]
# TODO: train a ConvNet as the shallow network above, with seed SEED: train_candidate(5, "convolutional, SGD", ...)
conv_history = ...

# %% name="q2-5-check" tags=["check"]
with one_line_errors("part 5"):
    assert is_filled_in(3), "fill in part 3 first"
    found = find_candidates(5, {"convolutional": conv_history}, ["convolutional"])
    assert_trained("convolutional", found["convolutional"], {"ConvNet": 1}, "SGD", LR)
    assert conv_history[-1]["train_loss"] < conv_history[0]["train_loss"], "the training loss does not fall"
    print("Both networks are trained.")

# %% name="q2-5-figure" tags=["figure"]
with one_line_errors("part 5"):
    histories = {"shallow": shallow_history, "convolutional": conv_history}
    display(plot_curves(histories, title="Two networks, both with SGD"))

# %% [markdown] name="q2-5-comment" tags=["comment"]
# > **Your comment.** Which network learns faster, which is better in the end? How many parameters does each have?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-6-text"
# ## 6. Batch normalization
# Put a batch norm between pooling and ReLU, with a switch. With it the convolutions need no bias. Then train four
# networks: with and without, each with SGD at 0.001 and with Adam at 0.0001. Draw the training loss and accuracy.
# At last, train one network on a single batch until it knows all of it.

# %% name="q2-6-class" tags=["gap"]
class ConvBlock(nn.Module):
    """Convolution 3x3, max pooling 2x2, batch norm if wanted, ReLU: half the resolution."""

    def __init__(self, in_channels, out_channels, batch_norm=True):
        super().__init__()
        # TODO: a convolution (with a bias only where there is no norm) and a norm
        ...

    def forward(self, x):
        # TODO: convolution, pooling, norm, ReLU
        ...


class BlockNet(nn.Module):
    """Blocks one after another, then a mean over the map and one linear layer."""

    def __init__(self, blocks, channels, classes):
        super().__init__()
        self.features = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3)))


def make_conv_net(batch_norm=True, seed=SEED):
    """The network of part 4 from blocks, with new random weights."""
    torch.manual_seed(seed)
    channels = [SHAPE[0], 16, 32, 64]
    blocks = [ConvBlock(channels[i], channels[i + 1], batch_norm) for i in range(3)]
    return BlockNet(blocks, channels[-1], CLASSES)

# %% name="q2-6-check" tags=["check"]
with one_line_errors("part 6"):
    block, without = ConvBlock(3, 8, batch_norm=True), ConvBlock(3, 8, batch_norm=False)
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1, f"ConvBlock: it has {len(norms)} batch norms, wanted 1"
    assert not any(isinstance(m, nn.BatchNorm2d) for m in without.modules()), "ConvBlock: a norm although it is off"
    x = torch.randn(4, 3, 8, 8)
    for own, norm in ((block, norms[0]), (without, nn.Identity())):
        output = own(x)
        assert getattr(output, "shape", None) == (4, 8, 4, 4), "ConvBlock: [N, 3, 8, 8] must become [N, 8, 4, 4]"
        assert output.min() == 0, "ConvBlock: after the ReLU nothing is negative"
        (convolution,) = [m for m in own.modules() if isinstance(m, nn.Conv2d)]
        expected = norm(cells_2x2(convolution(x)).amax(-1)).clamp(min=0)
        assert torch.allclose(output, expected, rtol=1e-3, atol=1e-5), (
            "ConvBlock: other values than by convolution, max pooling, norm (if it is on) and ReLU, in this order"
        )
    sizes = [sum(p.numel() for p in make_conv_net(on).parameters()) for on in (True, False)]
    assert sizes[0] == convolab.summary("simple_convnet", SHAPE).num_parameters, (
        "ConvBlock: convolutions before a norm need no bias"
    )
    expected_size = convolab.summary("simple_convnet", SHAPE).num_parameters - 16 - 32 - 64
    assert sizes[1] == expected_size, "ConvBlock: without norm, with bias"
    print("The block has its norm and its switch.")

# %% name="q2-6-train" tags=["gap"]
def make_adam(net, lr=1e-3):
    """Adam with PyTorch's own settings."""
    return torch.optim.Adam(net.parameters(), lr=lr)


# TODO: train_candidate(6, ...) four times, into norm_histories: "SGD, with", "SGD, without", "Adam, with", ...
norm_histories = ...  # a dict: name -> history

# %% name="q2-6-curves-check" tags=["check"]
with one_line_errors("part 6, curves"):
    assert is_filled_in(3), "fill in part 3 first"
    wanted = ["SGD, with", "SGD, without", "Adam, with", "Adam, without"]
    for key, candidate in find_candidates(6, norm_histories, wanted).items():
        name, word = key.split(", ")
        blocks = {"ConvBlock": 3, "BatchNorm2d": 3 if word == "with" else 0}
        assert_trained(key, candidate, blocks, name, 1e-3 if name == "SGD" else 1e-4)
    print("All four are trained.")

# %% name="q2-6-figure" tags=["figure"]
with one_line_errors("part 6"):
    columns = ["train_loss", "train_accuracy"]
    display(plot_curves(norm_histories, columns, title="Batch norm: SGD at 0.001 and Adam at 0.0001"))

# %% [markdown] name="q2-6-comment" tags=["comment"]
# > **Your comment.** What does batch norm change with SGD, what with Adam? Is the size of the effect what you expected?
#
# *Write your comment here, in place of this line.*

# %% name="q2-6-one-batch" tags=["gap"]
def fit_one_batch(net, pixels, labels, max_steps=400):
    """Train on one batch until every label of it is predicted. Returns the accuracy before each step and after all."""
    # TODO: steps of SGD on the same batch; stop at accuracy 1
    ...


batch_pixels, batch_labels = next(iter(make_loader(train_set, shuffle=True)))
batch_net = make_conv_net()
batch_accuracies = fit_one_batch(batch_net, batch_pixels, batch_labels)
if batch_accuracies:
    print(f"one batch accuracy = {batch_accuracies[-1]:.4f}\nafter {len(batch_accuracies) - 1} steps")

# %% name="q2-6-one-batch-check" tags=["check"]
with one_line_errors("part 6, one batch"):
    assert callable(criterion), "fill in part 3 first"
    assert batch_accuracies, "fit_one_batch returns no accuracies"
    assert batch_accuracies[-1] == 1, f"it ends at {batch_accuracies[-1]:.1%}; a sound network reaches 100 %"
    reached = max(measure(mode(), [(batch_pixels, batch_labels)])[1] for mode in (batch_net.train, batch_net.eval))
    assert reached == 1, f"fit_one_batch returns 100 %, but the network predicts {reached:.1%} of the batch"
    print("A single batch is learned completely, so loss, gradient and network fit together.")

# %% [markdown] name="q2-7-text"
# ## 7. Residual connections
# Add the input of a block to its output, before the ReLU. The sizes differ: average the input 2x2, and fill the new
# channels with zeros. So the connection has no weights. The first block has no connection.

# %% name="q2-7-class" tags=["gap"]
class ResidualBlock(ConvBlock):
    """A `ConvBlock` with batch norm whose input is added before the ReLU, averaged 2x2, its new channels zero."""

    def shortcut(self, x, out_channels):
        """The input at half the resolution, with `out_channels` channels: [N, C, H, W] -> [N, out, H/2, W/2]."""
        # TODO: average pooling, then zeros for the new channels
        ...

    def forward(self, x):
        # TODO: convolution, pooling, norm, plus the shortcut, ReLU
        ...


def make_residual_net(seed=SEED):
    """The network of part 6 with residual connections in its second and third block."""
    torch.manual_seed(seed)
    blocks = [ConvBlock(SHAPE[0], 16), ResidualBlock(16, 32), ResidualBlock(32, 64)]
    return BlockNet(blocks, 64, CLASSES)

# %% name="q2-7-check" tags=["check"]
with one_line_errors("part 7"):
    block = ResidualBlock(3, 5)
    x = torch.rand(2, 3, 4, 4)
    short = block.shortcut(x, 5)
    assert getattr(short, "shape", None) == (2, 5, 2, 2), (
        "ResidualBlock.shortcut: [2, 3, 4, 4] must become [2, 5, 2, 2]"
    )
    assert torch.allclose(short[:, :3], cells_2x2(x).mean(-1)), (
        "ResidualBlock.shortcut: the first channels are the 2x2 means"
    )
    assert short[:, 3:].abs().max() == 0, "ResidualBlock.shortcut: the new channels are zero"
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1, "the norm is that of ConvBlock: fill in part 6 first"
    (convolution,) = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    output = block(x)
    assert isinstance(output, torch.Tensor), "ResidualBlock.forward: return a tensor"
    expected = (norms[0](cells_2x2(convolution(x)).amax(-1)) + short).clamp(min=0)
    assert torch.allclose(output, expected, rtol=1e-3, atol=1e-5), (
        "ResidualBlock: other values than by convolution, max pooling, norm, plus the shortcut, and ReLU"
    )
    print("The block adds its input.")

# %% [markdown] name="q2-8-text"
# ## 8. Curves with and without residual connections
# Train both with SGD at 0.01.

# %% name="q2-8-train" tags=["gap"]
# TODO: train_candidate(8, ...) with make_conv_net() into residual_histories["without"], make_residual_net() "with"
residual_histories = ...  # a dict: name -> history

# %% name="q2-8-check" tags=["check"]
with one_line_errors("part 8"):
    assert is_filled_in(6), "fill in part 6 first"
    assert ResidualBlock(1, 2)(torch.rand(2, 1, 4, 4)) is not None, "fill in part 7 first"
    for word, candidate in find_candidates(8, residual_histories, ["without", "with"]).items():
        residual = 2 if word == "with" else 0
        blocks = {"ResidualBlock": residual, "ConvBlock": 3 - residual, "BatchNorm2d": 3}
        assert_trained(word, candidate, blocks, "SGD", LR)
    print("Both are trained.")

# %% name="q2-8-figure" tags=["figure"]
with one_line_errors("part 8"):
    display(plot_curves(residual_histories, title="Residual connections, SGD at 0.01"))

# %% [markdown] name="q2-8-comment" tags=["comment"]
# > **Your comment.** Do residual connections help here? Why could that be different in a deeper network?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-9-text"
# ## 9. Transforms of the training images
# Write a random horizontal flip and a random crop. Both take a batch of pixels and give one of the same shape. Draw
# again for each image of the batch. For digits only the crop is used: a mirrored digit is no digit. Draw the curves with
# and without, and print the accuracies after the last epoch.

# %% name="q2-9-transforms" tags=["gap"]
def random_flip(pixels):
    """Mirror each image of a batch left to right with probability 1/2."""
    # TODO: draw for each image, then choose between it and its mirror image
    ...


def random_crop(pixels, padding):
    """Pad each image with black, then cut out the old size at a random place."""
    # TODO: pad the batch; for each image draw the corner of the crop
    ...


def transform(pixels):
    """What the training images go through: a crop, and a flip where mirrored images make sense."""
    pixels = random_crop(pixels, max(1, SHAPE[1] // 8))
    return pixels if DATA == "digits" else random_flip(pixels)

# %% name="q2-9-check" tags=["check"]
with one_line_errors("part 9"):
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8)
    flipped = random_flip(x)
    assert getattr(flipped, "shape", None) == x.shape, "random_flip: return a batch of the same shape"
    same = (flipped == x).flatten(1).all(1)
    mirror = (flipped == x.flip(3)).flatten(1).all(1)
    assert (same | mirror).all(), "random_flip: every image must be the old one or its mirror image"
    assert 10 < mirror.sum() < 54, f"random_flip: {int(mirror.sum())} of 64 images are mirrored, about half were wanted"
    cropped = random_crop(x, 2)
    assert getattr(cropped, "shape", None) == x.shape, "random_crop: return a batch of the same shape"
    padded = F.pad(x, (2, 2, 2, 2)).unfold(2, 8, 1).unfold(3, 8, 1).flatten(2, 3)  # all 25 crops of each image
    is_crop = (padded == cropped[:, :, None]).flatten(3).all(3)[:, 0]  # [images, crops]
    assert is_crop.any(1).all(), "random_crop: every result must be one of the 25 crops of its own image"
    assert not torch.equal(cropped, x), "random_crop: nothing has moved"
    num_corners = len(is_crop.int().argmax(1).unique())
    assert num_corners > 10, f"random_crop: 64 images have {num_corners} corners of 25: draw for each image separately"
    print("Both transforms work.")

# %% name="q2-9-train" tags=["gap"]
# TODO: train_candidate(9, ...) with make_conv_net(), into transform_histories["without"]; with transform "with"
transform_histories = ...  # a dict: name -> history

# %% name="q2-9-train-check" tags=["check"]
with one_line_errors("part 9, training"):
    assert is_filled_in(6), "fill in part 6 first"
    for word, candidate in find_candidates(9, transform_histories, ["without", "with"]).items():
        assert_trained(word, candidate, {"ConvBlock": 3, "BatchNorm2d": 3}, "SGD", LR)
        has_transform = candidate.transform is not None
        assert has_transform == (word == "with"), (
            f"{word!r} was trained {'with' if has_transform else 'without'} a transform; give transform=transform for 'with'"
        )
    print("Both are trained.")

# %% name="q2-9-figure" tags=["figure"]
with one_line_errors("part 9"):
    display(plot_curves(transform_histories, title="Transforms of the training images, SGD at 0.01"))
    for word, history in transform_histories.items():
        print(f"{word} transforms: training accuracy {history[-1]['train_accuracy']:.2%}")
        print(f"validation accuracy {word} = {history[-1]['validation_accuracy']:.4f}")

# %% [markdown] name="q2-9-comment" tags=["comment"]
# > **Your comment.** What do the transforms do to the gap between training and validation? Do they help after so many epochs?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-10-text"
# ## 10. Schedules of the learning rate
# A scheduler changes the learning rate after each epoch. Compare a constant rate with `StepLR` and one more of
# `torch.optim.lr_scheduler`. Train the network of part 6 with SGD, each time from rate 0.03. Draw the rates too.

# %% name="q2-10-train" tags=["gap"]
STEP_SIZE = max(1, EPOCHS // 2)  # epochs between two steps of StepLR
# TODO: train_candidate(10, ...) into schedule_histories: "constant", "step" and one more, each with SGD at 0.03
schedule_histories = ...  # a dict: name -> history

# %% name="q2-10-check" tags=["check"]
with one_line_errors("part 10"):
    assert is_filled_in(6), "fill in part 6 first"
    rates = {}
    for name, candidate in find_candidates(10, schedule_histories, ["constant", "step"]).items():
        assert_trained(name, candidate, {"ConvBlock": 3, "BatchNorm2d": 3}, "SGD", 0.03)
        rates[name] = [entry["learning_rate"] for entry in candidate.history]
    assert abs(rates["step"][STEP_SIZE] / rates["step"][0] - 0.1) < 1e-6, (
        f"StepLR must cut the rate to a tenth, the rates are {rates['step']}"
    )
    assert len(set(rates["constant"])) == 1, "the constant rate changes"
    others = [name for name in rates if rates[name] not in (rates["constant"], rates["step"])]
    assert others, "one more schedule is wanted whose rates differ from both, such as 'cosine'"
    print("The schedules are followed.")

# %% name="q2-10-figure" tags=["figure"]
with one_line_errors("part 10"):
    columns = ["learning_rate", "train_loss", "validation_loss", "validation_accuracy"]
    display(plot_curves(schedule_histories, columns, title="Schedules of the learning rate, SGD at 0.03"))

# %% [markdown] name="q2-10-comment" tags=["comment"]
# > **Your comment.** What happens to the losses when the rate falls? Which schedule is best at the end?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-11-text"
# ## 11. Five rates with SGD, five with Adam, five gammas
# Train a network for each value, always from the same first weights. The gammas are those of `StepLR` with `STEP_SIZE`,
# and SGD starts at 0.1. Draw the training and the validation loss.

# %% name="q2-11-train" tags=["gap"]
SGD_RATES = [0.3, 0.1, 0.03, 0.01, 0.003]
ADAM_RATES = [0.03, 0.01, 0.003, 0.001, 0.0003]
GAMMAS = [1.0, 0.5, 0.2, 0.1, 0.01]
# TODO: three loops of train_candidate(11, ...); the keys are the numbers; for the gammas StepLR, and SGD from 0.1
sgd_histories, adam_histories, gamma_histories = ..., ..., ...  # dicts: number -> history

# %% name="q2-11-check" tags=["check"]
with one_line_errors("part 11"):
    assert is_filled_in(6), "fill in part 6 first"
    first, second = make_conv_net().state_dict(), make_conv_net().state_dict()
    is_same = all(torch.equal(first[name], second[name]) for name in first)
    assert is_same, "make_conv_net gives other first weights each time: set the seed in it, as in part 6"
    blocks = {"ConvBlock": 3, "BatchNorm2d": 3}
    for lr, candidate in find_candidates(11, sgd_histories, SGD_RATES).items():
        assert_trained(lr, candidate, blocks, "SGD", lr)
    for lr, candidate in find_candidates(11, adam_histories, ADAM_RATES).items():
        assert_trained(lr, candidate, blocks, "Adam", lr)
    for gamma, candidate in find_candidates(11, gamma_histories, GAMMAS).items():
        assert_trained(gamma, candidate, blocks, "SGD", 0.1)
        rates = [entry["learning_rate"] for entry in candidate.history]
        assert abs(rates[STEP_SIZE] / rates[0] - gamma) < 1e-6, f"gamma {gamma:g}: the rates are {rates}"
    print(f"{len(SGD_RATES) + len(ADAM_RATES) + len(GAMMAS)} networks are trained.")

# %% name="q2-11-figure-sgd" tags=["figure"]
LOSSES = ["train_loss", "validation_loss"]
with one_line_errors("part 11"):
    display(plot_curves(sgd_histories, LOSSES, title="Learning rate of SGD"))

# %% name="q2-11-figure-adam" tags=["figure"]
with one_line_errors("part 11"):
    display(plot_curves(adam_histories, LOSSES, title="Learning rate of Adam"))

# %% name="q2-11-figure-gamma" tags=["figure"]
with one_line_errors("part 11"):
    display(plot_curves(gamma_histories, LOSSES, title=f"gamma of StepLR, every {STEP_SIZE} epochs, SGD at 0.1"))

# %% [markdown] name="q2-11-comment" tags=["comment"]
# > **Your comment.** Which rate is best for SGD, which for Adam, which gamma? What happens at both ends of each range?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-12-text"
# ## 12. The best network, tested once
# Choose the candidate with the highest validation accuracy. Evaluate it on the test images: once, at the very end.

# %% name="q2-12-test" tags=["gap"]
# TODO: the name of the best of `candidates` by candidates[name].history; evaluate its .net on splits.test
best_name, test_accuracy = ..., ...

# %% name="q2-12-check" tags=["check"]
with one_line_errors("part 12"):
    assert is_filled_in(3), "fill in part 3 first"
    assert best_name in candidates, "not filled in yet: best_name must be one of the candidates"
    validation = {name: candidate.history[-1]["validation_accuracy"] for name, candidate in candidates.items()}
    best = max(validation, key=validation.get)
    assert validation[best_name] == validation[best], f"the candidate '{best}' is better on validation"
    best_net = candidates[best_name].net.eval()  # once more, to compare; nothing is chosen by it
    batches = [(*measure(best_net, [batch]), len(batch[1])) for batch in make_loader(splits.test)]
    expected = [sum(batch[i] * batch[2] for batch in batches) / sum(batch[2] for batch in batches) for i in (0, 1)]
    assert_equal_results("the test", (expected[0], test_accuracy), expected)
    print("Chosen by validation, tested once.")

# %% name="q2-12-figure" tags=["figure"]
with one_line_errors("part 12"):
    low, high = wilson_interval(round(test_accuracy * len(splits.test)), len(splits.test))
    title = "All candidates"
    display(plot_bars(validation, "validation accuracy after the last epoch", title=title, highlight=best_name))
    print(f"best = {best_name}\ntest accuracy = {test_accuracy:.4f}\n95 % interval {low:.4f} to {high:.4f}")

# %% [markdown] name="q2-12-comment" tags=["comment"]
# > **Your comment.** Which one was it? Is the test accuracy what validation promised? Why might it be lower?
#
# *Write your comment here, in place of this line.*

# %% [markdown] name="q2-13-text"
# ## 13. The same recipe, trained by convolab
# Is the loop above right? A second program trains the same network by the same recipe: same number of images, epochs,
# rate, momentum and weight decay. Seeds differ between two programs, so several seeds of each are compared. The runs are
# kept in `runs/`: they are part of what you hand in.

# %% name="q2-13-runs"
RECIPE = {'data.augment': [],
 'data.validation': 0.1,
 'optimizer.name': 'sgd',
 'optimizer.lr': 0.01,
 'optimizer.momentum': 0.9,
 'optimizer.weight_decay': 0.0005,
 'schedule.name': 'constant'}
with one_line_errors("part 13"):
    assert is_filled_in(6), "fill in parts 1 to 6 first"
own_accuracies, their_accuracies, runs = [], [], []
for seed in range(BUDGET["seeds"]):
    net = make_conv_net(seed=seed)
    loaders = make_loader(train_set, shuffle=True, seed=seed), make_loader(validation_set)
    history = fit(net, criterion, make_sgd(net), *loaders, EPOCHS, name=f"own loop, seed {seed}")
    own_accuracies.append(history[-1]["validation_accuracy"])
    run = convolab.train(
        "simple_convnet",
        DATA,
        data_dir=DATA_DIR,
        seed=seed,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        callbacks=None if seed == 0 else Callbacks(),  # the first one is shown while it trains
        overrides={**RECIPE, "data.limit": limit},
    )
    runs.append(run)
    their_accuracies.append(run.history[-1].validation_accuracy)

# %% name="q2-13-check" tags=["check"]
with one_line_errors("part 13"):
    assert is_filled_in(6), "fill in parts 1 to 6 first, then run the cell above"
    assert len(runs) == BUDGET["seeds"], "the runs are missing: run the cell above"
    mean_difference = sum(own_accuracies) / len(runs) - sum(their_accuracies) / len(runs)
    with warnings.catch_warnings():  # of accuracies that are all equal: their variance is 0, and the interval is right
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = scipy.stats.ttest_ind(own_accuracies, their_accuracies, equal_var=False).confidence_interval()
    within_noise = interval.low <= 0 <= interval.high
    assert within_noise or abs(mean_difference) < 0.05, (
        f"the loops differ by {100 * mean_difference:.1f} percentage points"
    )
    print(f"own loop {own_accuracies}\nconvolab {their_accuracies}")
    print(f"difference of the means = {mean_difference:.4f}\n95 % interval {interval.low:.4f} to {interval.high:.4f}")

# %% name="q2-13-figure" tags=["figure"]
with one_line_errors("part 13"):
    bars = {
        f"{who}, seed {seed}": values[seed]
        for seed in range(len(runs))
        for who, values in (("own loop", own_accuracies), ("convolab", their_accuracies))
    }
    display(
        plot_bars(bars, "validation accuracy after the last epoch", title="The own loop and convolab, the same recipe")
    )

# %% [markdown] name="q2-13-comment" tags=["comment"]
# > **Your comment.** Do both programs agree? How much do seeds differ?
#
# *Write your comment here, in place of this line.*
