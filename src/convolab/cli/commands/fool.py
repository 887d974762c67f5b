"""Fool: change a picture until a network takes it for another class, and see whether other networks do too."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.commands.explain import MaxPixelsOption, NetOption
from convolab.cli.findings import describe_output_files, finding_to_dict, image_name, output_stem, save_finding
from convolab.cli.options import AsJson, Threads, prepare_torch, set_passive_omp_wait
from convolab.cli.terminal import print_json, status_spinner
from convolab.core.errors import require

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding


def fool_command(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURE...", help="A sample (chelsea, coffee, ...), a path, an http(s) address, or noise."
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            help="The classes to be taken for, with commas: names, indices or WordNet ids; random or random:3 draws them."
        ),
    ],
    net: NetOption = "efficientnet_lite0",
    victims: Annotated[
        str, typer.Option(help="Other networks of the same classes that are to see the pictures, with commas.")
    ] = "",
    objective: Annotated[
        str | None,
        typer.Option(
            help="What to climb: the target's log-probability, logit or margin.",
            show_default="log-probability; logit with --for-transfer",
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="How far a picture may go: linf=8/255, l2=1.5, or none.")] = "none",
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Go on until the target is so probable.", show_default="first success; 0.95 with --for-transfer"
        ),
    ] = None,
    max_steps: Annotated[int, typer.Option(help="At most so many steps.")] = 200,
    step_size: Annotated[
        float | None,
        typer.Option(help="The length (L2) of a step.", show_default="0.5 for 224 x 224 pixels; see docs/fooling.md"),
    ] = None,
    for_transfer: Annotated[
        bool,
        typer.Option("--for-transfer", help="Climb with momentum and input diversity, and compare with plain ascent."),
    ] = False,
    surrogates: Annotated[
        str, typer.Option(help="Networks to climb on besides --net, with commas; with --for-transfer.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of noise, random targets, input diversity and the control.")] = 0,
    max_pixels: MaxPixelsOption = 50_000_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where it goes: OUT.png, .npz and .json, and OUT-TARGET.png for each target.", show_default="fool-NAME"
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Change a picture until a network takes it for another class, and see whether other networks do too."""
    set_passive_omp_wait()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import load_network
    from convolab.data.image_io import read_image
    from convolab.inspection.adversarial.fool import NOISE_INPUT, make_attack_config, parse_targets
    from convolab.inspection.adversarial.fool import fool as deceive

    make_attack_config(objective, budget, step_size, max_steps, confidence, for_transfer)
    stem = fool_output_stem(images, out)
    network_names = {kind: split_names(given) for kind, given in (("transfer", victims), ("sources", surrogates))}
    for kind, given in network_names.items():
        require(net not in given, f"{net} is the network to be fooled: leave it out of --{kind}")
    require(for_transfer or not network_names["sources"], "--sources are for climbing for transfer: add --for-transfer")
    network = load_network(net)
    other_networks = {kind: {word: load_network(word) for word in given} for kind, given in network_names.items()}
    parse_targets(network, target)
    photos = [
        picture if picture == NOISE_INPUT else read_image(picture, max_pixels) for picture in images
    ]  # all, before work starts
    with status_spinner("fooling") as update_status:
        finding = deceive(
            network,
            photos,
            target,
            objective=objective,
            budget=budget,
            step_size=step_size,
            max_steps=max_steps,
            confidence=confidence,
            **other_networks,
            for_transfer=for_transfer,
            seed=seed,
            image_names=[image_name(picture) for picture in images],
            on_progress=update_status,
        )
        save_finding(finding, stem, net, transfer_charts(finding))
        image_paths = save_adversarial_images(finding, stem)
    if as_json:
        print_json(finding_to_dict(finding, net))
        return
    print(finding)
    print(describe_output_files(stem))
    print(
        f"fooling pictures: {image_paths[0]}"
        + (f" and {len(image_paths) - 1} more beside it" if len(image_paths) > 1 else "")
    )


def split_names(text: str) -> list[str]:
    """
    >>> names_in("efficientnet_lite1, runs/simple,")
    ['efficientnet_lite1', 'runs/simple']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def fool_output_stem(images: list[str], out: Path | None) -> Path:
    """Where the files go, without their endings: several pictures make one finding. Refuses pictures of one name."""
    names = [image_name(picture) for picture in images]
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(
        not repeated, f"several pictures are called {', '.join(repeated[:3])}: give each once, under a name of its own"
    )
    return output_stem("fool", images[0] if len(images) == 1 else f"{len(images)}-pictures", out)


def transfer_charts(finding: "Finding") -> "list[Image.Image]":
    """The transfer matrix, if other networks have looked."""
    if finding.metrics["transfer"] is None:
        return []
    from convolab.plots.adversarial import transfer_matrix_chart
    from convolab.plots.explain import chart_to_pil_image

    return [chart_to_pil_image(transfer_matrix_chart(finding.metrics["transfer"]["kinds"]))]


def save_adversarial_images(finding: "Finding", stem: Path) -> list[Path]:
    """Write each fooling picture as its own PNG: beside the others of one picture, in a folder of the finding's name for several."""
    from convolab.plots.panels import panel_to_pil_image, save_panel_image

    records = finding.metrics["pictures"]
    single = len({one["picture"] for one in records}) == 1
    names = (
        [class_slug(one["target"]["class"]) for one in records]
        if single
        else [f"{one['picture']}-{class_slug(one['target']['class'])}" for one in records]
    )
    paths = []
    for number, name in enumerate(names):
        if names.count(name) > 1:  # two classes whose names differ in signs alone
            name += f"-{records[number]['target']['index']}"
        path = stem.with_name(f"{stem.name}-{name}.png") if single else stem / f"{name}.png"
        paths.append(save_panel_image(panel_to_pil_image(finding.arrays["fooling"][number]), path))
    return paths


def class_slug(name: str) -> str:
    """A class's name in a file's.

    >>> slug("crane (bird)")
    'crane-bird'
    """
    return re.sub(r"[^\w]+", "-", name).strip("-") or "class"
