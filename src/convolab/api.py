"""What a person calls in Python: names, paths and arrays become what the layers below take, and progress is shown.

`convolab.train`, `explain`, `fool`, `locate` and `summary` are these, and those of studies in `api_studies`. The functions
below them in `training`, `inspection`, `analysis` and `studies` take objects only and, but for a training, show nothing.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from convolab.analysis.summary import ModelSummary, summarize_network
from convolab.arguments import (
    ImageLike,
    NetworkSource,
    is_run_folder,
    network_label,
    parse_input_shape,
    resolve_classifier,
    resolve_image,
    resolve_several,
    train_overrides,
)
from convolab.core.environment import require_device
from convolab.core.errors import LabError, require
from convolab.core.free_cores import spare_busy_cores
from convolab.core.trust import trust_all
from convolab.core.types import Json
from convolab.data.catalog import load
from convolab.inspection.adversarial.fool import fool_classifier
from convolab.inspection.adversarial.pgd import StepCallback
from convolab.inspection.explain.explain import explain_prediction
from convolab.inspection.explain.method_names import DEFAULT_METHODS
from convolab.inspection.localization.locate import DEFAULT_ALIGNMENT, DEFAULT_BOX_THRESHOLD, locate_objects
from convolab.inspection.receptive_field import inspect_receptive_field
from convolab.inspection.result import Finding
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import DEFAULT_NETWORK
from convolab.models.registry import trust_named
from convolab.models.resolve import resolve_model
from convolab.reports.live import live_training
from convolab.training.callbacks import TrainingCallbacks
from convolab.training.epoch_log import require_logger
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.run_folder import require_new_folder


def train(
    network: str | Recipe = "simple_convnet",
    data: str | Mapping[str, Json] | None = None,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    optimizer: str | Mapping[str, Json] | None = None,
    schedule: str | Mapping[str, Json] | None = None,
    augment: Sequence[str] | None = None,
    out: Path | str | None = None,
    data_dir: Path | str | None = None,
    device: str = "cpu",
    callbacks: TrainingCallbacks | None = None,
    log: str | None = None,
    overrides: Mapping[str, Json] | None = None,
    trust: bool = False,
    **settings: Json,
) -> Run:
    """Train a network, show how it goes, and return its run.

    All is checked before a folder is made. Ctrl-C, or a notebook's stop button, stops after the present step;
    `run.resume()` then continues bit for bit.

    Args:
        network: A network's name such as "simple_convnet", "file.py:Name" for your own, or a whole recipe.
        data: A dataset's name, or your own images, such as "folder:PATH"; by default the recipe's, which is "digits".
        epochs: How often each training image is used.
        lr: The learning rate.
        batch_size: Images per step.
        seed: Of the split, the first weights and the order of images.
        optimizer: "sgd", "adam", "adamw" or "muon", one of torch.optim, your own as "file.py:Name", or the section as a dict.
        schedule: "constant", "step", "cosine", "linear", "one_cycle", one of torch's, your own, or the section as a dict.
        augment: Random transforms of the training images, such as ["crop:4", "flip"].
        out: The run's folder, new or empty; by default a new one in runs/.
        data_dir: The folder that holds the dataset.
        device: "cpu", "cuda" or "mps".
        callbacks: Called while it trains, instead of the display.
        log: "tensorboard", "mlflow", "wandb" or "playback": where the epochs go too, below the run's folder.
        overrides: Any recipe keys, such as {"optimizer.weight_decay": 0}.
        trust: Run the code that a recipe names and that you have not named or trusted before.
        **settings: Sections of a recipe as dicts, such as model={"channels": [8, 16]}; `data` may be one too.

    Returns:
        The run; `run.history` are its epochs, `run.net()` is the network, `run.test()` tests it.

    Raises:
        LabError: For an unknown keyword, name or key, with the nearest; for a recipe that cannot be trained on the
            images; for a folder that is in use.
        Diverged: If the loss becomes NaN or infinite.

    >>> import tempfile
    >>> run = train("shallow_net", epochs=2, lr=0.1, out=tempfile.mkdtemp())
    >>> run.status, len(run.history)
    ('finished', 2)
    """
    values = {
        "data": data, "epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed, "optimizer": optimizer,
        "schedule": schedule, "augment": augment if augment is None or isinstance(augment, str) else list(augment),
    }  # fmt: skip
    require(
        isinstance(network, str | Recipe),
        "train takes a network's name or a recipe: for a class or function of your own call convolab.register(it, 'name') "
        "first, for a network that is built already call convolab.fit(net, dataset)",
    )
    require(
        data is None or isinstance(data, str | Mapping),
        "data is the name of a dataset or of your images, such as 'folder:PATH': save arrays as an .npz file and give "
        "'npz:PATH', or call convolab.fit(net, dataset)",
    )
    require(
        overrides is None or isinstance(overrides, Mapping),
        f"overrides = {overrides!r} is not a dict of recipe keys: give one such as {{'optimizer.weight_decay': 0}}",
    )
    changes = train_overrides(values, settings, overrides or {})
    with trust_all(trust):
        base = network if isinstance(network, Recipe) else Recipe.from_dict({"model": {"name": network}})
        recipe = base.with_overrides(changes)
        require_new_folder(out)
        require_logger(log)
        require_device(device)
        root = Path(data_dir) if data_dir is not None else None
        shown = nullcontext(callbacks) if callbacks is not None else live_training(recipe.training.epochs)
        with shown as chosen:
            splits = load(recipe.data.name, root, image_size=recipe.data.image_size, on_message=chosen.on_message)
            for note in splits.notes:
                chosen.on_message(note)
            return Run.start(recipe, splits, out, device=device, data_dir=root, callbacks=chosen, log=log)


@spare_busy_cores()
def explain(
    image: ImageLike,
    net: NetworkSource = DEFAULT_NETWORK,
    *,
    target: str | int | None = None,
    methods: str | Sequence[str] = DEFAULT_METHODS,
    check: bool = False,
    samples: str | int | None = None,
    seed: int = 0,
) -> Finding:
    """What a network predicts for an image, and by several methods which pixels the prediction depends on.

    Args:
        image: A sample's name such as "chelsea", a path, an http(s) address, a file in `io.BytesIO`, a Pillow image, an
            array [H, W, 3] or a tensor [3, H, W]; bytes, or floats in [0, 1].
        net: A pretrained network's name, a run or its folder, or an `ImageClassifier`.
        target: The class to explain: its name, an unambiguous beginning, or index; by default the most probable.
        methods: Names of methods, such as "gradient,gradcam".
        check: Whether to check the maps: randomized weights, deletion and insertion. Up to a minute.
        samples: The noisy copies of SmoothGrad and the steps of integrated gradients, or "auto": as many as it takes
            until the map no longer changes. By default 25 and 50.
        seed: Of SmoothGrad's noise and of the checks.

    Returns:
        A finding, which draws itself; `finding.arrays` holds the raw maps [H, W].

    Raises:
        LabError: For an unknown class, method, network or image, and for logits that are not finite.

    >>> explain("coffee", methods="gradcam").metrics["target"]["class"]
    'espresso'
    """
    classifier = resolve_classifier(net)
    name, pixels = resolve_image(image)
    finding = explain_prediction(
        classifier,
        pixels,
        target=target,
        methods=methods,
        check=check,
        samples=samples,
        seed=seed,
        image_name=name,
    )
    return replace(finding, net=network_label(net))


@spare_busy_cores()
def fool(
    images: ImageLike | Sequence[ImageLike],
    target: str | int | Sequence[str | int],
    net: NetworkSource = DEFAULT_NETWORK,
    *,
    victims: NetworkSource | Sequence[NetworkSource] | Mapping[str, NetworkSource] = (),
    surrogates: NetworkSource | Sequence[NetworkSource] | Mapping[str, NetworkSource] = (),
    objective: str | None = None,
    budget: str = "none",
    step_size: float | None = None,
    max_steps: int | None = None,
    confidence: float | None = None,
    for_transfer: bool = False,
    shortest: bool = False,
    seed: int = 0,
    on_step: StepCallback | None = None,
) -> Finding:
    """Change images until a network predicts another class, and see whether other networks are fooled too.

    Args:
        images: One image or several, as `explain` takes them, or "noise".
        target: The class to reach, or several.
        net: The network to fool, as `explain` takes it.
        victims: Other networks of the same classes, on which transfer is measured; a dict gives each a name.
        surrogates: Networks to attack together with `net`; only with for_transfer=True.
        objective: What to climb: "logit", "log-probability" or "margin"; by default the log-probability, for transfer the
            logit.
        budget: How far an image may move: "linf=8/255", "l2=1.5" or "none".
        step_size: The L2 norm of a step, in pixels of [0, 1]; by default chosen by the image's size.
        max_steps: The largest number of steps, each with one gradient; by default 200, with shortest=True 40.
        confidence: Go on until the target has this probability, in [0, 1); by default the first success is enough.
        for_transfer: Attack so that other networks are fooled too: with momentum and random sizes, on all `surrogates`.
        shortest: Use all steps for a perturbation that is short in L2 as saved in 8 bits.
        seed: Of noise, random targets and the control.
        on_step: Called before each step and at the end: number, and the unfinished images' probabilities and pixels.

    Returns:
        A finding, which draws itself; its arrays hold the fooling images, bytes [N, C, H, W].

    Raises:
        LabError: For what cannot be understood, and a target that an image is classified as already.

    >>> fool("chelsea", "goldfish").metrics["fooled"]["fraction"]
    1.0
    """
    several = list(images) if isinstance(images, Sequence) and not isinstance(images, str) else [images]
    named = [("noise", "noise") if isinstance(i, str) and i == "noise" else resolve_image(i) for i in several]
    pixels: list[Tensor | str] = [image for _, image in named]
    finding = fool_classifier(
        resolve_classifier(net),
        pixels,
        target,
        victims=resolve_several(victims),
        surrogates=resolve_several(surrogates),
        image_names=[name for name, _ in named],
        objective=objective,
        budget=budget,
        step_size=step_size,
        max_steps=max_steps,
        confidence=confidence,
        for_transfer=for_transfer,
        shortest=shortest,
        seed=seed,
        on_step=on_step,
    )
    return replace(finding, net=network_label(net))


@spare_busy_cores()
def locate(
    image: ImageLike,
    net: NetworkSource = DEFAULT_NETWORK,
    *,
    targets: str | int | Sequence[str | int] = (),
    top: int = 1,
    scales: str | float | Sequence[str | float] = "1",
    alignment: str = DEFAULT_ALIGNMENT,
    threshold: float = DEFAULT_BOX_THRESHOLD,
    granularity: str | None = None,
    sliding_window_check: bool = False,
) -> Finding:
    """Find objects of some classes in an image of any size: a response and boxes for each class.

    Args:
        image: As `explain` takes it.
        net: A network whose last feature map is averaged or flattened and then classified by one linear layer.
        targets: Classes to find; without any the `top` most probable ones.
        top: How many classes, where there are no targets.
        scales: Sizes at which the network sees the image: factors or shorter sides, such as "0.5,1", [0.5, 1] or "448px".
        alignment: How cells of the map lie on the image: "erf" (as measured), "rf-center" or "resize".
        threshold: A box is where the response is above this fraction of its largest value, in (0, 1].
        granularity: The response of each "cell" of the last map, or of each "window" of the network's own input size; by
            default cells, if the network averages its last map.
        sliding_window_check: Compare the map with windows that are cropped and classified one by one. Slow.

    Returns:
        A finding, which draws itself; `finding.rows()` are the boxes, in pixels of the image.

    Raises:
        LabError: For an unknown class or scale, an image that is too small or too large, and a network without such a
            head.

    >>> locate("motorcycle_left", targets="moped", alignment="resize").rows()[0]["box"]
    [127, 62, 695, 461]
    """
    name, pixels = resolve_image(image)
    several = [targets] if isinstance(targets, str | int) else list(targets)
    finding = locate_objects(
        resolve_classifier(net),
        pixels,
        targets=several,
        top=top,
        scales=str(scales) if isinstance(scales, str | int | float) else ",".join(map(str, scales)),
        alignment=alignment,
        threshold=threshold,
        granularity=granularity,
        sliding_window_check=sliding_window_check,
        image_name=name,
    )
    return replace(finding, net=network_label(net))


@spare_busy_cores()
def receptive_field(
    image: ImageLike, net: NetworkSource = DEFAULT_NETWORK, *, pixel: Sequence[int], layer: str | None = None
) -> Finding:
    """Where one cell of a network looks, in theory and by its gradient, and what the network makes of that patch alone.

    Args:
        image: As `explain` takes it.
        net: As `explain` takes it.
        pixel: Row and column in the network's input; the cell whose field is centered nearest is taken.
        layer: The path of a layer, such as "blocks.2"; by default the last one with several cells.

    Returns:
        A finding, which draws itself; `finding.metrics["theoretical"]` and `["effective"]` hold a box (left, top, right,
        bottom, in pixels of the network's input) and the classes of what is in it.

    Raises:
        LabError: For a pixel outside the input, an unknown layer, and a network without cells.

    >>> receptive_field("chelsea", pixel=(100, 100)).metrics["cells"]
    [7, 7]
    """
    name, pixels = resolve_image(image)
    finding = inspect_receptive_field(resolve_classifier(net), pixels, pixel, layer=layer, image_name=name)
    return replace(finding, net=network_label(net))


def summary(
    network: nn.Module | Callable[[], nn.Module] | Run | str | Path,
    input_shape: Sequence[int] | str | None = None,
    *,
    batch_size: int = 1,
    classes: int | None = None,
    model: Mapping[str, Json] | None = None,
    beside: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda message: None,
) -> ModelSummary:
    """Parameters, MACs, memory and receptive field of every layer of a network, for inputs of one shape.

    Args:
        network: A network, its name ("simple_convnet", "timm/NAME", "torchvision/NAME", "file.py:Name"), a run or its
            folder; or a function that builds a network, which is then built without weights.
        input_shape: Of one input without the batch, such as (3, 32, 32) or "3x32x32"; by default that of the run or the
            library, and (3, 32, 32) of another network by name.
        batch_size: Inputs at a time; MACs and memory are those of one batch.
        classes: Number of logits of a network by name; by default 10, or the library's own number.
        model: Options of a network by name, such as {"channels": [8, 16]}; not of a library's.
        beside: Other counters to run too: "fvcore", "torchinfo", "thop", "ptflops".
        on_message: Called with a line before anything slow.

    Returns:
        A summary, which draws itself. Memory is in bytes, receptive fields in pixels.

    Raises:
        LabError: For an unknown name, a shape that is not known or does not fit the network.

    >>> summary("simple_convnet").num_parameters
    24346
    """
    given_shape = None if input_shape is None else parse_input_shape(input_shape)
    builder: nn.Module | Callable[[], nn.Module]
    own_shape: tuple[int, ...] | None = None
    name = ""
    if isinstance(network, type) and issubclass(network, nn.Module):
        try:
            inspect.signature(network).bind()
        except TypeError as error:
            raise LabError(
                f"{network.__name__} is a class that needs arguments: give a network made of it, or a function that makes one"
            ) from error
    if isinstance(network, str | Path) and not is_run_folder(network):
        trust_named(str(network))
        spec = resolve_model(str(network), given_shape, classes, model)
        builder, own_shape, name = spec.build, spec.input_shape, str(network)
    elif model:
        raise LabError("options are for a network by name: a run or a network has its own already; leave model out")
    elif isinstance(network, Run | str | Path):
        run = network if isinstance(network, Run) else Run(network)
        builder, name = run.net(), str(run.folder)
    else:
        builder = network
    if isinstance(builder, ImageClassifier):
        own_shape = (builder.channels, *builder.input_size)
    if (shape := given_shape or own_shape) is None:
        raise LabError(f"the input shape of {name or 'the network'} is not known: give it, such as 3x32x32")
    result = summarize_network(builder, shape, batch_size=batch_size, beside=beside, on_message=on_message)
    return replace(result, network=name or result.network)
