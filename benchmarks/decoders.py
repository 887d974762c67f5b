"""How fast JPEGs are decoded: ours against Pillow alone, torchvision's decoder and simplejpeg, where it is installed.

    python benchmarks/decoders.py [--rounds 5]

All of these call libjpeg-turbo. One thread, in turn, files in memory: what is timed ends with RGB bytes of the whole image. The last
row lets the decoder itself shrink a large image, by the largest power of two that leaves 224 pixels (Pillow's `draft`); its bits differ
from those of a whole image that is resized, so ours does not do that.
"""

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median

import numpy as np
import torch
from measure import processor, table
from PIL import Image, features

from convolab.data.image_io import MAX_IMAGE_PIXELS, decode_image

SIDES = (224, 2000)  # pixels: an image as a network takes it, and a photo
KEPT_SIDE = 224


def make_jpeg(side: int) -> bytes:
    """Smooth noise, which compresses and decodes like a photo."""
    coarse = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def with_convolab(jpeg: bytes) -> object:
    return decode_image(io.BytesIO(jpeg), "a photo", MAX_IMAGE_PIXELS)


def with_pillow(jpeg: bytes) -> object:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def with_pillow_shrinking(jpeg: bytes) -> object:
    image = Image.open(io.BytesIO(jpeg))
    image.draft("RGB", (KEPT_SIDE, KEPT_SIDE))
    return np.asarray(image)


def decoders() -> dict[str, Callable[[bytes], object]]:
    found: dict[str, Callable[[bytes], object]] = {"convolab": with_convolab, "Pillow": with_pillow}
    if find_spec("torchvision"):
        from torchvision.io import ImageReadMode, decode_jpeg

        found["torchvision"] = lambda jpeg: decode_jpeg(
            torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.RGB
        )
    if find_spec("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = simplejpeg.decode_jpeg
    return found | {"Pillow, shrinking": with_pillow_shrinking}


def milliseconds(decode: Callable[[], object], least_seconds: float = 0.5) -> float:
    """Of a call, the mean over as many as fill the seconds."""
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < least_seconds:
        decode()
        calls += 1
    return 1e3 * (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    jpegs = {side: make_jpeg(side) for side in SIDES}
    taken: dict[str, dict[int, list[float]]] = {name: {side: [] for side in SIDES} for name in decoders()}
    for number in range(given.rounds + 1):
        for name, decode in decoders().items():
            for side, jpeg in jpegs.items():
                once = milliseconds(partial(decode, jpeg))
                if number:  # the first round is to warm up
                    taken[name][side].append(once)
    rows = []
    for name, of_sides in taken.items():
        row = {"decoder": name}
        for side, values in of_sides.items():
            ratio = median(theirs / ours for ours, theirs in zip(taken["convolab"][side], values, strict=True))
            row[f"{side} px, ms"] = f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            row[f"{side} px, convolab is"] = f"{ratio:.2f} x"
        rows.append(row)
    sizes = ", ".join(f"{side} px: {len(jpeg) / 1e3:.0f} kB" for side, jpeg in jpegs.items())
    print(
        f"{processor()}; {given.rounds} rounds; {sizes}; Pillow with libjpeg-turbo {features.version('libjpeg_turbo')}\n"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
