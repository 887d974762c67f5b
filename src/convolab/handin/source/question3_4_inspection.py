# %% [markdown] name="q3-title"
# # Questions 3 and 4: look into a trained network
#
# Question 3 asks which pixels a prediction depends on, and changes images until the network is wrong. Question 4 finds
# objects in large images with a network that was trained on small ones. Saliency, ascent and response are yours: a few
# lines of PyTorch each. convolab gives the pretrained network and the images, and its own answer beside yours.
#
# When all is done: restart the kernel, run all cells in order, and save. Then `convolab handin check .` lists what is
# still open.

# %% name="q3-install"
import importlib.util
import subprocess
import sys

# Where convolab is missing, as in Colab: what pip installs. It is not published yet, so give the wheel file or the folder
# of a checkout, such as "/content/convolab-0.1.0-py3-none-any.whl[notebook]" after you have uploaded that file.
CONVOLAB = ""

if importlib.util.find_spec("convolab") is None:
    assert CONVOLAB, "convolab is not installed: write into CONVOLAB above what to install"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", CONVOLAB], check=True)

# %% name="q3-settings"
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin while they wait are slow

import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from torch import nn

import convolab
from convolab.handin.figures import show_panels
from convolab.handin.one_line_errors import one_line_errors
from convolab.inspection.result import Box, Panel
from convolab.training.callbacks import Callbacks

DATA = "digits"  # or "cifar10": what the small network of question 4 is trained on
DATA_DIR = None  # the folder that holds the images; None: $CONVOLAB_DATA, or convolab's own folder
FAST = False  # True: a short run that only shows whether all works

DATA = os.environ.get("CONVOLAB_HOMEWORK_DATA", DATA)
FAST = os.environ.get("CONVOLAB_FAST", "1" if FAST else "0") == "1"
BUDGETS = {}  # from homework.toml
BUDGET = BUDGETS[f"{DATA}-fast" if FAST else DATA]
print(f"data = {DATA}\nfast = {FAST}\ntorch = {torch.__version__}, {torch.get_num_threads()} threads")
BUDGET

# %% [markdown] name="q3-images-text"
# ## The network and the images
# The network is EfficientNet-Lite0, trained on ImageNet: 224 x 224 pixels in [0, 1], 1000 classes. One image is read
# from an address on the web; put one in for `IMAGE_ADDRESS`. Where it cannot be read, such as without a network, a sample
# takes its place. Put photos of your own into the list: paths of files.

# %% name="q3-images"
IMAGE_ADDRESS = "chelsea"  # such as "https://.../cat.jpg"; "chelsea" is a sample that needs no network
OWN_IMAGES = ["coffee", "rocket"]  # such as ["my_dog.jpg", "my_cup.jpg"]

net = convolab.pretrained("efficientnet_lite0")
photos = {}  # name -> bytes, [3, H, W]
try:
    photos[IMAGE_ADDRESS] = convolab.read_image(IMAGE_ADDRESS)
except convolab.LabError as error:
    print(f"The sample 'chelsea' takes the place of {IMAGE_ADDRESS}: {error}")
    IMAGE_ADDRESS = "chelsea"
    photos[IMAGE_ADDRESS] = convolab.read_image(IMAGE_ADDRESS)
photos |= {name: convolab.read_image(name) for name in OWN_IMAGES}
inputs = {name: net.preprocess(photo) for name, photo in photos.items()}  # pixels in [0, 1], [1, 3, 224, 224]


def top_classes(net, pixels, count=3):
    """The most probable classes of one image, as text."""
    with torch.no_grad():
        probabilities, labels = net(pixels).softmax(1)[0].topk(count)
    return "\n".join(f"{p:.1%} {net.classes[i]}" for p, i in zip(probabilities.tolist(), labels.tolist(), strict=True))


show_panels(
    [[Panel(title=name, image=photo, caption=top_classes(net, inputs[name])) for name, photo in photos.items()]]
)

# %% [markdown] name="q3-1-text"
# ## 3.1 Saliency maps
# The saliency of a pixel is how much the score of a class changes with it: the absolute value of the derivative of the
# logit, the largest of the three channels (Simonyan et al. 2013). Write it with autograd.


# %% name="q3-1-saliency" tags=["gap"]
def saliency(net, pixels, target):
    """How much the target's logit depends on each pixel: [1, 3, H, W] -> [H, W], not negative."""
    # BEGIN SOLUTION: pixels that require a gradient, the logit of the target, its gradient, absolute value, maximum
    pixels = pixels.clone().requires_grad_(True)
    logit = net(pixels)[0, target]
    (gradient,) = torch.autograd.grad(logit, pixels)  # [1, 3, H, W]
    return gradient[0].abs().amax(0)
    # END SOLUTION


maps = {}
for name, pixels in inputs.items():
    target = net(pixels).argmax().item()
    maps[name] = saliency(net, pixels, target)

# %% name="q3-1-check" tags=["check"]
with one_line_errors("part 3.1"):
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 2))
    small_map = saliency(linear, torch.rand(1, 3, 4, 4), 1)
    assert isinstance(small_map, torch.Tensor), "saliency: return a map"
    assert small_map.shape == (4, 4), f"saliency: the map has the shape {tuple(small_map.shape)}, wanted [H, W]"
    weights = linear[1].weight[1].view(3, 4, 4)
    assert torch.allclose(small_map, weights.abs().amax(0)), (
        "saliency: for a linear network it must be its largest |weight|"
    )
    theirs = convolab.explain(photos[IMAGE_ADDRESS], methods="gradient").arrays["gradient"]
    difference = ((maps[IMAGE_ADDRESS] - theirs).abs().max() / theirs.max()).item()
    assert difference < 1e-3, f"saliency: it differs from convolab's by {difference:.1%} of the largest value"
    print(f"Equal to convolab's map; largest difference {difference:.1e} of the largest value.")

# %% name="q3-1-figure" tags=["figure"]
with one_line_errors("part 3.1"):
    images = [Panel(title=name, image=(255 * pixels[0]).round().byte()) for name, pixels in inputs.items()]
    heatmaps = [Panel(title="saliency", heatmap=maps[name], colorbar_label="|d logit / d pixel|") for name in inputs]
    display(show_panels([images, heatmaps]))

# %% name="q3-1-beside"
convolab.explain(photos[IMAGE_ADDRESS], methods="gradient,smoothgrad,gradcam").plot()


# %% name="q3-1-comment" tags=["comment"]
# PROMPT: What do the maps show? Is the object where the map is bright? What do they not show?
def share_of_middle(heatmap):
    """The fraction of a map that lies in the middle quarter of its area."""
    height, width = heatmap.shape
    middle = heatmap[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return (middle.sum() / heatmap.sum()).item()


shares = {name: share_of_middle(heatmap) for name, heatmap in maps.items()}
verdict = (
    "So the maps hardly prefer the middle, where the objects are: they do not outline the object."
    if max(shares.values()) < 0.35
    else "So at least one map prefers the middle, where the objects are."
)
display(
    Markdown(
        f"""The maps are grainy: single pixels are bright, not surfaces. A derivative tells how the logit reacts to a very
small change of one pixel, not what the object is. The middle quarter of the area holds
{", ".join(f"{share:.0%} ({name})" for name, share in shares.items())} of the saliency; 25 % would be the share of a
map without any preference. {verdict} SmoothGrad is a mean over noisy copies of the image.
Grad-CAM shows regions only, in cells of 32 pixels."""
    )
)

# %% [markdown] name="q3-2-text"
# ## 3.2 Fooling images
# Change an image until the network predicts a class of your choice: `X_fooling`. In each step compute the gradient `g`
# of the target's normalized score, the logarithm of its softmax probability, with respect to the pixels. Then step by
# `step_size * g / ||g||`, and keep the pixels in [0, 1]. A file holds bytes, so stop when the target is predicted for
# the rounded image, `to_bytes(x)[None] / 255`.


# %% name="q3-2-fool" tags=["gap"]
def to_bytes(pixels):
    """Pixels in [0, 1], [1, 3, H, W], as an image file holds them: bytes, [3, H, W]."""
    return (255 * pixels[0]).round().byte()


def make_fooling_image(net, pixels, target, step_size=0.5, max_steps=200):
    """Gradient ascent from an image towards a class. Returns X_fooling and the target's probability before each step.

    X_fooling has the shape of `pixels`, [1, 3, H, W], and is in [0, 1].
    """
    # BEGIN SOLUTION: loop: log-softmax of the target, stop if the rounded image is predicted so, else a step of fixed length
    x_fooling, probabilities = pixels.clone(), []
    for _ in range(max_steps):
        x_fooling.requires_grad_(True)
        scores = F.log_softmax(net(x_fooling), dim=1)  # [1, classes]
        probabilities.append(scores[0, target].exp().item())
        if net(to_bytes(x_fooling)[None] / 255).argmax().item() == target:
            break
        (gradient,) = torch.autograd.grad(scores[0, target], x_fooling)
        x_fooling = (x_fooling.detach() + step_size * gradient / gradient.norm()).clamp(0, 1)
    return x_fooling.detach(), probabilities
    # END SOLUTION


TARGETS = ["goldfish", "teapot", "tank"]
clean = inputs[IMAGE_ADDRESS]
fooling = {}  # target -> (X_fooling, probabilities)
for target in TARGETS:
    fooling[target] = make_fooling_image(net, clean, net.find_class(target))

# %% name="q3-2-check" tags=["check"]
with one_line_errors("part 3.2"):
    for target in TARGETS:
        assert fooling[target], f"make_fooling_image: it returns nothing for {target}"
        x_fooling, probabilities = fooling[target]
        assert x_fooling.shape == clean.shape, "make_fooling_image: X_fooling must have the shape of the image"
        assert x_fooling.min() >= 0 and x_fooling.max() <= 1, "make_fooling_image: the pixels must stay in [0, 1]"
        index = net.find_class(target)
        with torch.no_grad():
            before, after = net(clean).softmax(1)[0], net(to_bytes(x_fooling)[None] / 255).softmax(1)[0]
        predicted = net.classes[after.argmax().item()]
        assert after.argmax() == index, (
            f"make_fooling_image: {target} was wanted, {predicted} is predicted for the rounded image"
        )
        start = before[index].item()
        assert abs(probabilities[0] - start) <= 1e-3 * start, (
            f"make_fooling_image: the first probability of {target} is {probabilities[0]:.2e}, and the network gives the "
            f"unchanged image {start:.2e}"
        )
        assert probabilities[-1] > probabilities[0], f"make_fooling_image: the probability of {target} does not rise"
    print("The network is fooled for each target.")


# %% name="q3-2-figure" tags=["figure"]
def difference_image(x_fooling, gain=10):
    """What was added, enlarged around gray: bytes, [3, H, W]."""
    return to_bytes((0.5 + gain * (x_fooling - clean)).clamp(0, 1))


with one_line_errors("part 3.2"):
    rows = []
    for target, (x_fooling, probabilities) in fooling.items():
        change, rounded = x_fooling - clean, to_bytes(x_fooling)
        print(
            f"{target}: {len(probabilities) - 1} steps, L2 {change.norm():.2f}, largest change {change.abs().max():.3f}"
        )
        rows.append(
            [
                Panel(title="original", image=to_bytes(clean), caption=top_classes(net, clean)),
                Panel(title=f"X_fooling: {target}", image=rounded, caption=top_classes(net, rounded[None] / 255)),
                Panel(title="10 x the difference, around gray", image=difference_image(x_fooling)),
            ]
        )
    display(show_panels(rows))

# %% [markdown] name="q3-2-transfer-text"
# ### Does it fool another network?
# Give each fooling image, as bytes, to EfficientNet-Lite1. It was trained on the same classes, and resizes the image to
# 240 pixels.

# %% name="q3-2-transfer" tags=["gap"]
other_net = convolab.pretrained("efficientnet_lite1")
# BEGIN SOLUTION: for each fooling image: to_bytes, other_net.preprocess, the predicted class, the target's probability
# INSTEAD: transfer = ...  # a dict: target -> (class that the other network predicts, its probability of the target)
transfer = {}  # target -> (class that the other network predicts, its probability of the target)
for target, (x_fooling, _) in fooling.items():
    with torch.no_grad():
        probabilities = other_net(other_net.preprocess(to_bytes(x_fooling))).softmax(1)[0]
    predicted = other_net.classes[probabilities.argmax().item()]
    transfer[target] = predicted, probabilities[other_net.find_class(target)].item()
# END SOLUTION
clean_class = other_net.classes[other_net(other_net.preprocess(to_bytes(clean))).argmax().item()]
if transfer is not ...:
    for target, (predicted, probability) in transfer.items():
        print(f"{target}: the other network predicts {predicted}, {target} has {probability:.2%}; clean: {clean_class}")

# %% name="q3-2-transfer-check" tags=["check"]
with one_line_errors("part 3.2, transfer"):
    assert isinstance(transfer, dict), "not filled in yet: a dict with an entry for each target is wanted"
    assert set(transfer) == set(TARGETS), f"transfer has entries for {sorted(transfer)}, wanted {sorted(TARGETS)}"
    for target, (predicted, probability) in transfer.items():
        with torch.no_grad():
            expected = other_net(other_net.preprocess(to_bytes(fooling[target][0]))).softmax(1)[0]
        expected_class = other_net.classes[expected.argmax().item()]
        assert predicted == expected_class, (
            f"{target}: {predicted!r} is given, the other network predicts {expected_class}"
        )
        expected_probability = expected[other_net.find_class(target)].item()
        assert abs(probability - expected_probability) < 1e-4, (
            f"{target}: the probability {probability} is given, the other network gives {target} {expected_probability:.2e}"
        )
    num_fooled = sum(other_net.find_class(target) == other_net.find_class(p) for target, (p, _) in transfer.items())
    print(f"transferred = {num_fooled} of {len(TARGETS)}")

# %% name="q3-2-beside"
convolab.fool(to_bytes(clean), TARGETS[0], victims=["efficientnet_lite1"]).plot()

# %% name="q3-2-comment" tags=["comment"]
# PROMPT: How large is the change? Can you see it? Is the other network fooled, and why (not)?
lengths = {target: (x - clean).norm().item() for target, (x, _) in fooling.items()}
steps = {target: len(probabilities) - 1 for target, (_, probabilities) in fooling.items()}
changed = sum(predicted != clean_class for predicted, _ in transfer.values())
display(
    Markdown(
        f"""The network is fooled for all {len(TARGETS)} targets, in
{", ".join(f"{count} steps ({target})" for target, count in steps.items())}. The changes have the lengths
{", ".join(f"{length:.2f}" for length in lengths.values())} in pixels of [0, 1]; the image itself has
{clean.norm().item():.0f}. Nobody would see them without the enlarged difference. The other network predicts the target
in {num_fooled} of {len(TARGETS)} cases and another class than before in {changed}. The ascent stops as soon as the
first network is over its border. It uses the gradient of that network alone, so the change lies in directions that
this very network is sensitive to, and another one hardly."""
    )
)

# %% [markdown] name="q4-title"
# # Question 4: find objects in large images
# The network was trained at 224 x 224 pixels, to name images. Its last feature map is averaged over its cells, and a
# linear layer gives the logits. A mean and a linear layer can change places: apply the linear layer to every cell, and
# the mean of these responses is the logit. On a larger image there are more cells, so the responses tell where the
# object is, with no training.

# %% [markdown] name="q4-1-text"
# ## 4.1 The response of every cell
# Write two functions. `last_feature_map` gives the map before the average pooling, for pixels of any size: keep the output
# of `net.network.act2` by a forward hook, and run the network with `net.forward_unchecked(pixels)`, which takes any
# size. `response_map` applies the weights and the bias of the linear layer to the features of every cell. The check
# compares the mean of the responses with the logits.


# %% name="q4-1-response" tags=["gap"]
def last_feature_map(net, pixels):
    """The map before the average pooling, for pixels of any size: [1, 3, H, W] -> [1, 1280, H/32, W/32]."""
    # BEGIN SOLUTION: a forward hook on net.network.act2 that keeps its output
    kept = {}
    hook = net.network.act2.register_forward_hook(lambda module, args, output: kept.update(features=output))
    with torch.no_grad():
        net.forward_unchecked(pixels)
    hook.remove()
    return kept["features"]
    # END SOLUTION


def response_map(features, weight, bias):
    """The linear layer applied to every cell: [1, channels, rows, columns] -> [classes, rows, columns]."""
    # BEGIN SOLUTION: a product over the channels, plus the bias
    return torch.einsum("kc,crs->krs", weight, features[0]) + bias[:, None, None]
    # END SOLUTION


LARGE_IMAGE, TARGET = "motorcycle_left", "moped"  # an image of your own may take its place
photo = convolab.read_image(LARGE_IMAGE)
large_pixels = photo[None] / 255  # all pixels, not resized
weight, bias = net.network.classifier.weight, net.network.classifier.bias
features = last_feature_map(net, large_pixels)
responses = response_map(features, weight, bias)
if responses is not None:
    print(f"image {tuple(photo.shape[1:])}, map {tuple(responses.shape[1:])}")

# %% name="q4-1-check" tags=["check"]
with one_line_errors("part 4.1"):
    small_features = last_feature_map(net, clean)
    assert isinstance(small_features, torch.Tensor), "last_feature_map: return the map"
    assert small_features.shape == (1, 1280, 7, 7), (
        f"last_feature_map: {tuple(small_features.shape)}, wanted [1, 1280, 7, 7]"
    )
    small_responses = response_map(small_features, weight, bias)
    assert isinstance(small_responses, torch.Tensor), "response_map: return the responses"
    assert small_responses.shape == (1000, 7, 7), f"response_map: {tuple(small_responses.shape)}, wanted [1000, 7, 7]"
    with torch.no_grad():
        logits = net(clean)[0]
    error = (small_responses.mean((1, 2)) - logits).abs().max().item()
    assert error < 1e-3, f"response_map: the mean of the responses must be the logits; they differ by {error:.3f}"
    cell = F.linear(small_features[0, :, 2, 5], weight, bias)
    assert (small_responses[:, 2, 5] - cell).abs().max() < 1e-3, (
        "response_map: in row 2 and column 5 are other values than the linear layer gives the features of this cell"
    )
    print(f"The mean of the responses is the logits; largest difference {error:.1e}.")

# %% [markdown] name="q4-2-text"
# ## 4.2 Where is the object?
# Draw the response of the target on the last feature map, and over the image. Put a box around the cells above half of
# the largest response. Compare the whole image with the same image at half the size.


# %% name="q4-2-locate" tags=["gap"]
def box_of_response(response, size, threshold=0.5):
    """The box around the largest cell and the cells above threshold * largest that are connected with it, in pixels.

    Cells are connected left, right, up and down. `response` is [rows, columns], its largest value above 0; `size` is the
    height and width of the image. Returns left, top, right, bottom.
    """
    # BEGIN SOLUTION: start at the largest cell, add neighbors above the threshold, scale cells to pixels
    rows, columns = response.shape
    start = divmod(response.argmax().item(), columns)
    region, waiting = set(), [start]
    while waiting:
        row, column = waiting.pop()
        inside = 0 <= row < rows and 0 <= column < columns
        if inside and (row, column) not in region and response[row, column] > threshold * response.max():
            region.add((row, column))
            waiting += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    top, bottom = min(row for row, _ in region), max(row for row, _ in region) + 1
    left, right = min(column for _, column in region), max(column for _, column in region) + 1
    height, width = size[0] / rows, size[1] / columns
    return round(left * width), round(top * height), round(right * width), round(bottom * height)
    # END SOLUTION


target = net.find_class(TARGET)
half_pixels = F.interpolate(large_pixels, scale_factor=0.5, mode="bilinear", antialias=True)
found = {}  # name of the size -> (response of the target, box in the pixels of the photo)
for size_name, pixels in {"full size": large_pixels, "half size": half_pixels}.items():
    responses = response_map(last_feature_map(net, pixels), weight, bias)
    if responses is not None:
        response = responses[target].detach()
        if response.max() <= 0:
            raise ValueError(f"no cell at {size_name} responds to {TARGET}: choose a class that is in the image")
        found[size_name] = response, box_of_response(response, tuple(photo.shape[1:]))

# %% name="q4-2-check" tags=["check"]
with one_line_errors("part 4.2"):
    grid = torch.zeros(4, 5)
    grid[1:3, 2:4] = torch.tensor([[2.0, 1.5], [1.2, 0.1]])
    grid[0, 0] = 1.9  # not connected
    for threshold, wanted in ((0.5, (20, 10, 40, 30)), (0.7, (20, 10, 40, 20))):
        box = box_of_response(grid, (40, 50), threshold)
        assert box is not None, "box_of_response: return left, top, right, bottom"
        assert tuple(box) == wanted, f"box_of_response: {tuple(box)}, wanted {wanted} for the threshold {threshold}"
    assert found.keys() == {"full size", "half size"}, "fill in part 4.1 first, then run the cell above"
    print("The box is that of the connected cells.")

# %% name="q4-2-figure" tags=["figure"]
with one_line_errors("part 4.2"):
    rows, label = [], f"response of {TARGET}"
    for size_name, (response, box) in found.items():
        left, top, right, bottom = box
        print(f"{size_name}: map {tuple(response.shape)}, largest response {response.max():.2f}, box {box}")
        rows.append(
            [
                Panel(title=f"{LARGE_IMAGE}, {size_name}", image=photo, boxes=(Box(left, top, right, bottom, TARGET),)),
                Panel(title="response over the image", image=photo, heatmap=response.clamp(min=0)),
                Panel(title="response of each cell", heatmap=response, signed=True, colorbar_label=label),
            ]
        )
    display(show_panels(rows))

# %% name="q4-2-beside"
located = convolab.locate(LARGE_IMAGE, targets=TARGET, scales="0.5,1")
display(located.plot())


def overlap(first, second):
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return shared / (sum(areas) - shared)


with one_line_errors("part 4.2"):
    their_box = located.rows()[0]["box"]
    overlaps = {size_name: overlap(box, their_box) for size_name, (_, box) in found.items()}
    print(f"convolab's box, of both sizes together and of all cells above 0.3 of the largest: {their_box}")
    print(f"overlap with the boxes above: {overlaps}")

# %% name="q4-2-comment" tags=["comment"]
# PROMPT: Does the response find the object? What does the size of the image change? What limits the precision?
full, half = found["full size"], found["half size"]
stronger = "full" if full[0].max() > half[0].max() else "half"
display(
    Markdown(
        f"""At full size the map has {full[0].shape[0]} x {full[0].shape[1]} cells, at half the size
{half[0].shape[0]} x {half[0].shape[1]}. The largest response is {full[0].max():.1f} and {half[0].max():.1f}: it is
stronger at {stronger} size, where the object is nearer to the size that it has in training images. The boxes overlap
with convolab's by {overlaps["full size"]:.2f} and {overlaps["half size"]:.2f} (intersection over union). The response
marks the parts that tell the class from others, not the whole object. A cell is 32 pixels of its image, and it sees
far more than these, so a border is known to a cell at best. Nothing was trained for this."""
    )
)

# %% [markdown] name="q4-3-text"
# ## 4.3 The same with a small network
# A network as in question 2, with two stages, is trained on single small images below. Then four test images lie on one
# large canvas. The same two steps, the feature map and the linear layer at every cell, find which class is where.

# %% name="q4-3-small"
splits = convolab.load(DATA, DATA_DIR)
RECIPE = {}  # from homework.toml
small_run = convolab.train(
    "simple_convnet",
    DATA,
    data_dir=DATA_DIR,
    epochs=BUDGET["small_epochs"],
    callbacks=Callbacks(),
    overrides={**RECIPE, "data.limit": min(BUDGET["limit"], len(splits.train)), "model.channels": [16, 32]},
)
small_net = small_run.net()
_, side, _ = splits.test.shape
chosen = [(splits.test.labels == label).nonzero()[0].item() for label in (1, 3, 5, 7)]
canvas = torch.zeros(1, splits.test.shape[0], 5 * side, 5 * side)
corners = [(side // 2, side // 2), (side // 2, 3 * side), (3 * side, side // 2), (3 * side, 3 * side)]
for index, (top, left) in zip(chosen, corners, strict=True):
    canvas[0, :, top : top + side, left : left + side] = splits.test[index][0] / 255

with torch.no_grad():
    standardized = (canvas - torch.tensor(small_net.mean).view(-1, 1, 1)) / torch.tensor(small_net.std).view(-1, 1, 1)
    small_features = small_net.network.features(standardized)
head = small_net.network.head.linear
with one_line_errors("part 4.3"):
    canvas_responses = response_map(small_features, head.weight, head.bias)
    assert isinstance(canvas_responses, torch.Tensor), "fill in part 4.1 first"

# %% name="q4-3-figure" tags=["figure"]
with one_line_errors("part 4.3"):
    correct = 0
    panels = [Panel(title="canvas", image=(255 * canvas[0]).byte())]
    for index, (top, left) in zip(chosen, corners, strict=True):
        label = splits.test[index][1]
        response = canvas_responses[label].detach()
        scale = side * 5 / response.shape[0]
        row, column = divmod(response.argmax().item(), response.shape[1])
        y, x = (row + 0.5) * scale, (column + 0.5) * scale
        hit = top <= y < top + side and left <= x < left + side
        correct += hit
        box = Box(left, top, left + side, top + side)
        panels.append(
            Panel(
                title=f"response of {splits.test.classes[label]}",
                image=(255 * canvas[0]).byte(),
                heatmap=response.clamp(min=0),
                boxes=(box,),
                caption="largest response: " + ("in its box" if hit else "elsewhere"),
            )
        )
    print(
        f"found = {correct} of {len(chosen)}\nsmall network's validation accuracy = {small_run.best_epoch.validation_accuracy:.4f}"
    )
    display(show_panels([panels[:3], panels[3:]]))

# %% name="q4-3-comment" tags=["comment"]
# PROMPT: How many of the four are found? What does the network do where there is nothing?
outside = torch.ones(5 * side, 5 * side, dtype=torch.bool)
for top, left in corners:
    outside[top : top + side, left : left + side] = False
winners = F.interpolate(canvas_responses[None].detach(), (5 * side, 5 * side)).argmax(1)[0]
empty = winners[outside].bincount(minlength=len(splits.test.classes))
display(
    Markdown(
        f"""{correct} of {len(chosen)} classes have their largest response on their own image. The small network names single
images with {small_run.best_epoch.validation_accuracy:.1%} accuracy on validation. On the empty ground it names a class
too, mostly "{splits.test.classes[empty.argmax().item()]}" ({empty.max().item() / outside.sum().item():.0%} of that area):
it never saw an image of nothing and has no class for it. So a response is only as good as its comparison with the
others."""
    )
)
