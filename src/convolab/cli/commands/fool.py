"""Fool: change a picture until a network takes it for another class, and see whether other networks do too."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.commands.explain import MaxPixels, Net
from convolab.cli.findings import files_said, keep, name_of, numbers_of, stem_for
from convolab.cli.options import AsJson, Threads, patient_threads, prepare_torch
from convolab.cli.terminal import print_json, working
from convolab.core.errors import need

if TYPE_CHECKING:
    from PIL import Image

    from convolab.inspection.result import Finding


def fool(
    pictures: Annotated[
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
    net: Net = "efficientnet_lite0",
    transfer: Annotated[
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
    steps: Annotated[int, typer.Option(help="At most so many steps.")] = 200,
    step: Annotated[
        float | None,
        typer.Option(help="The length (L2) of a step.", show_default="0.5 for 224 x 224 pixels; see docs/fooling.md"),
    ] = None,
    for_transfer: Annotated[
        bool,
        typer.Option("--for-transfer", help="Climb with momentum and input diversity, and compare with plain ascent."),
    ] = False,
    sources: Annotated[
        str, typer.Option(help="Networks to climb on besides --net, with commas; with --for-transfer.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of noise, random targets, input diversity and the control.")] = 0,
    max_pixels: MaxPixels = 50_000_000,
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
    patient_threads()
    prepare_torch("cpu", threads)
    from convolab.cli.networks import find_net
    from convolab.data.image_io import open_photo
    from convolab.inspection.adversarial.fool import NOISE, climb_for, find_targets
    from convolab.inspection.adversarial.fool import fool as deceive

    climb_for(objective, budget, step, steps, confidence, for_transfer)
    stem = stem_of(pictures, out)
    words = {kind: names_in(given) for kind, given in (("transfer", transfer), ("sources", sources))}
    for kind, given in words.items():
        need(net not in given, f"{net} is the network to be fooled: leave it out of --{kind}")
    need(for_transfer or not words["sources"], "--sources are for climbing for transfer: add --for-transfer")
    network = find_net(net)
    others = {kind: {word: find_net(word) for word in given} for kind, given in words.items()}
    find_targets(network, target)
    photos = [
        picture if picture == NOISE else open_photo(picture, max_pixels) for picture in pictures
    ]  # all, before work starts
    with working("fooling") as telling:
        found = deceive(
            network,
            photos,
            target,
            objective=objective,
            budget=budget,
            step=step,
            max_steps=steps,
            confidence=confidence,
            **others,
            for_transfer=for_transfer,
            seed=seed,
            names=[name_of(picture) for picture in pictures],
            on_progress=telling,
        )
        keep(found, stem, net, charts_of(found))
        saved = keep_pictures(found, stem)
    if as_json:
        print_json(numbers_of(found, net))
        return
    print(found)
    print(files_said(stem))
    print(f"fooling pictures: {saved[0]}" + (f" and {len(saved) - 1} more beside it" if len(saved) > 1 else ""))


def names_in(words: str) -> list[str]:
    """
    >>> names_in("efficientnet_lite1, runs/simple,")
    ['efficientnet_lite1', 'runs/simple']
    """
    return list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))


def stem_of(pictures: list[str], out: Path | None) -> Path:
    """Where the files go, without their endings: several pictures make one finding. Refuses pictures of one name."""
    names = [name_of(picture) for picture in pictures]
    repeated = sorted({name for name in names if names.count(name) > 1})
    need(
        not repeated, f"several pictures are called {', '.join(repeated[:3])}: give each once, under a name of its own"
    )
    return stem_for("fool", pictures[0] if len(pictures) == 1 else f"{len(pictures)}-pictures", out)


def charts_of(found: "Finding") -> "list[Image.Image]":
    """The transfer matrix, if other networks have looked."""
    if found.numbers["transfer"] is None:
        return []
    from convolab.plots.adversarial import transfer
    from convolab.plots.explain import as_image

    return [as_image(transfer(found.numbers["transfer"]["kinds"]))]


def keep_pictures(found: "Finding", stem: Path) -> list[Path]:
    """Write each fooling picture as its own PNG: beside the others of one picture, in a folder of the finding's name for several."""
    from convolab.plots.panels import save_picture, to_image

    ones = found.numbers["pictures"]
    single = len({one["picture"] for one in ones}) == 1
    names = (
        [slug(one["target"]["class"]) for one in ones]
        if single
        else [f"{one['picture']}-{slug(one['target']['class'])}" for one in ones]
    )
    paths = []
    for number, name in enumerate(names):
        if names.count(name) > 1:  # two classes whose names differ in signs alone
            name += f"-{ones[number]['target']['index']}"
        path = stem.with_name(f"{stem.name}-{name}.png") if single else stem / f"{name}.png"
        paths.append(save_picture(to_image(found.arrays["fooling"][number]), path))
    return paths


def slug(name: str) -> str:
    """A class's name in a file's.

    >>> slug("crane (bird)")
    'crane-bird'
    """
    return re.sub(r"[^\w]+", "-", name).strip("-") or "class"
