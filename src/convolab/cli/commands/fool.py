"""Fool: change images until a network predicts another class, and see whether other networks are fooled too."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.findings import (
    describe_output_files,
    finding_paths,
    image_name,
    output_stem,
    save_finding,
)
from convolab.cli.options import (
    DEFAULT_NET,
    AsJson,
    MaxPixelsOption,
    NetOption,
    Threads,
    prepare_torch,
    set_passive_omp_wait,
)
from convolab.cli.terminal import print_json, print_lines, status_spinner
from convolab.core.errors import require
from convolab.core.escape import file_name_part
from convolab.core.outputs import require_outputs

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding


def fool_command(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="A sample (chelsea, coffee, ...), a path, an http(s) URL, or noise."),
    ],
    target: Annotated[
        str,
        typer.Option(
            help="The classes to predict, with commas: names, indices or WordNet ids; random or random:3 draws them."
        ),
    ],
    net: NetOption = DEFAULT_NET,
    victims: Annotated[
        str, typer.Option(help="Other networks of the same classes, on which transfer is measured, with commas.")
    ] = "",
    objective: Annotated[
        str | None,
        typer.Option(
            help="What to maximize: the target's log-probability, logit or margin.",
            show_default="log-probability; logit with --for-transfer",
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="How far an image may move: linf=8/255, l2=1.5, or none.")] = "none",
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Go on until the target has this probability.", show_default="first success; 0.95 with --for-transfer"
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(help="At most so many steps, each with one gradient.", show_default="200; 40 with --shortest"),
    ] = None,
    step_size: Annotated[
        float | None,
        typer.Option(help="The L2 norm of a step.", show_default="0.5 for 224 x 224 pixels; see docs/adversarial.md"),
    ] = None,
    for_transfer: Annotated[
        bool,
        typer.Option("--for-transfer", help="Attack with momentum and input diversity, and compare with plain PGD."),
    ] = False,
    shortest: Annotated[
        bool,
        typer.Option("--shortest", help="Use all steps for a perturbation that is short in L2 as saved in 8 bits."),
    ] = False,
    surrogates: Annotated[
        str, typer.Option(help="Networks to attack together with --net, with commas; with --for-transfer.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of noise, random targets, input diversity and the control.")] = 0,
    max_pixels: MaxPixelsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where it goes: OUT.png, .npz and .json, and OUT-TARGET.png for each target.",
            show_default="fool-NAME, or fool-NAME-NET",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Change images until a network predicts another class, and see whether other networks are fooled too."""
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.arguments import resolve_classifier
    from convolab.data.image_io import read_image
    from convolab.inspection.adversarial.fool import NOISE_INPUT, fool_classifier, make_attack_config, parse_targets

    make_attack_config(objective, budget, step_size, max_steps, confidence, for_transfer, shortest)
    stem = fool_output_stem(images, out, net)
    victim_names, surrogate_names = split_names(victims), split_names(surrogates)
    for option, names in (("--victims", victim_names), ("--surrogates", surrogate_names)):
        require(net not in names, f"{net} is the network to be fooled: leave it out of {option}")
    require(for_transfer or not surrogate_names, "--surrogates are only used with --for-transfer: add it")
    network = resolve_classifier(net)
    victim_nets = {name: resolve_classifier(name) for name in victim_names}
    surrogate_nets = {name: resolve_classifier(name) for name in surrogate_names}
    chosen = parse_targets(network, target)
    possible = range(len(network.classes)) if isinstance(chosen, int) else chosen  # random ones are drawn later
    image_paths = adversarial_image_paths(
        stem, [(image_name(image), network.classes[index], index) for image in images for index in possible]
    )
    if isinstance(chosen, int):
        image_paths = [path for path in dict.fromkeys(image_paths) if os.path.lexists(path)]
    require_outputs("fool", [*finding_paths(stem), *image_paths], [*images, net, *victim_names, *surrogate_names])
    # All images are read before work starts.
    inputs = [image if image == NOISE_INPUT else read_image(image, max_pixels) for image in images]
    with status_spinner("fooling") as update_status:
        finding = fool_classifier(
            network,
            inputs,
            target,
            objective=objective,
            budget=budget,
            step_size=step_size,
            max_steps=max_steps,
            confidence=confidence,
            victims=victim_nets,
            surrogates=surrogate_nets,
            for_transfer=for_transfer,
            shortest=shortest,
            seed=seed,
            image_names=[image_name(image) for image in images],
            on_progress=update_status,
        )
        finding = replace(finding, net=net)
        save_finding(finding, stem, transfer_charts(finding))
        image_paths = save_adversarial_images(finding, stem)
    if as_json:
        print_json(finding.to_dict())
        return
    more = f" and {len(image_paths) - 1} more beside it" if len(image_paths) > 1 else ""
    print_lines(*str(finding).split("\n"), describe_output_files(stem), f"fooling images: {image_paths[0]}{more}")


def split_names(text: str) -> list[str]:
    """
    >>> split_names("efficientnet_lite1, runs/simple,")
    ['efficientnet_lite1', 'runs/simple']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def fool_output_stem(images: Sequence[str], out: Path | None, net: str) -> Path:
    """Where the files go, without their endings: several images make one finding. Refuses images of one name."""
    names = [image_name(image) for image in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(
        not repeated, f"several images are called {', '.join(repeated[:3])}: give each once, under a name of its own"
    )
    return output_stem("fool", images[0] if len(images) == 1 else f"{len(images)}-images", out, net)


def transfer_charts(finding: "Finding") -> "list[Image.Image]":
    """The transfer matrix, if there are victims."""
    if finding.metrics["transfer"] is None:
        return []
    from convolab.plots.adversarial import transfer_matrix_chart
    from convolab.plots.style import chart_to_pil_image

    return [chart_to_pil_image(transfer_matrix_chart(finding.metrics["transfer"]["conditions"]))]


def save_adversarial_images(finding: "Finding", stem: Path) -> list[Path]:
    """Write each fooling image as a PNG: beside the figure for one image, in a folder of its name for several."""
    from convolab.plots.images import save_image, to_pil_image

    records = finding.metrics["images"]
    paths = adversarial_image_paths(
        stem, [(record["image"], record["target"]["class"], record["target"]["index"]) for record in records]
    )
    for path, pixels in zip(paths, finding.arrays["fooling"], strict=True):
        save_image(to_pil_image(pixels), path, finding.tool)
    return paths


def adversarial_image_paths(stem: Path, targets: Sequence[tuple[str, str, int]]) -> list[Path]:
    """Where each fooling image goes, by the image's name, and its target's name and index.

    >>> adversarial_image_paths(Path("fool-cat"), [("cat", "crane (bird)", 134), ("cat", "crane bird", 135)])
    [PosixPath('fool-cat-crane-bird-134.png'), PosixPath('fool-cat-crane-bird-135.png')]
    """
    single = len({image for image, _, _ in targets}) == 1
    names = [
        ("" if single else f"{image if image.isprintable() else file_name_part(image)}-") + file_name_part(target)
        for image, target, _ in targets
    ]
    counts = Counter(names)  # two classes' names may differ in punctuation alone
    names = [
        f"{name}-{index}" if counts[name] > 1 else name for name, (_, _, index) in zip(names, targets, strict=True)
    ]
    return [stem.with_name(f"{stem.name}-{name}.png") if single else stem / f"{name}.png" for name in names]
