"""Single images, in all formats and conditions."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.core.errors import LabError
from convolab.data.image_io import SAMPLE_IMAGES, read_image, read_image_file, resize_and_center_crop

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixel(path: Path, x: int = 0, y: int = 0) -> list[int]:
    return read_image_file(path)[:, y, x].tolist()


def test_a_lossless_image_is_read_bit_for_bit(tmp_path):
    photo = read_image_file(save(tmp_path / "a.png", Image.fromarray(NOISE)))
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), NOISE)


def test_a_gray_image_becomes_three_equal_channels(tmp_path):
    photo = read_image_file(save(tmp_path / "a.png", Image.fromarray(NOISE[..., 0])))
    assert np.array_equal(photo.numpy(), np.stack([NOISE[..., 0]] * 3))


def test_transparent_pixels_are_composited_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black
    path = save(tmp_path / "a.png", image)
    assert [pixel(path, x) for x in range(3)] == [[255, 0, 0], [255, 255, 255], [204, 204, 204]]


def test_a_palette_with_a_transparent_color_is_read(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", image, transparency=0)
    assert [pixel(path, x) for x in range(2)] == [[255, 255, 255], [200, 100, 50]]


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
def test_cmyk_becomes_rgb(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert np.abs(np.array(pixel(path)) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_are_scaled_and_rounded(tmp_path, suffix):
    levels = np.array([[0, 128, 129, 257 * 100, 65535]], np.uint16)
    photo = read_image_file(save(tmp_path / f"a.{suffix}", Image.fromarray(levels)))
    assert photo[0, 0].tolist() == [0, 0, 1, 100, 255]


@pytest.mark.parametrize(
    "image", [Image.new("F", (2, 2), 0.5), Image.new("I", (2, 2), 70_000)], ids=lambda image: image.mode
)
def test_values_of_unknown_range_are_refused(tmp_path, image):
    with pytest.raises(LabError, match=r"a\.tiff: pixels .*: save it with 8 or 16 bits"):
        read_image_file(save(tmp_path / "a.tiff", image))


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixel(path) == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_rotated_upright(tmp_path, orientation):
    transpose = Image.Transpose
    stored_as = {
        2: transpose.FLIP_LEFT_RIGHT,
        3: transpose.ROTATE_180,
        4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE,
        6: transpose.ROTATE_90,
    }
    stored_as |= {7: transpose.TRANSVERSE, 8: transpose.ROTATE_270}
    exif, upright = Image.Exif(), Image.fromarray(NOISE)
    exif[0x0112] = orientation
    stored = upright.transpose(stored_as[orientation]) if orientation > 1 else upright
    photo = read_image_file(save(tmp_path / "a.png", stored, exif=exif))
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), NOISE)


def test_damaged_exif_does_not_prevent_reading_a_good_image(tmp_path, recwarn):
    path = save(
        tmp_path / "a.jpg", Image.new("RGB", (8, 6), (0, 0, 255)), exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
    )
    assert read_image_file(path).shape == (3, 6, 8)
    assert not recwarn.list


def test_a_missing_file_a_folder_and_a_run_are_refused(tmp_path):
    for path, message in ((tmp_path / "gone.png", "there is no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(LabError, match=f"^{path}: {message}"):
            read_image_file(path)
    for name in ("recipe.toml", "summary.json"):
        (tmp_path / name).touch()
    with pytest.raises(LabError, match=f"this is a run: give an image, and the run as the network \\(--net {tmp_path}"):
        read_image_file(tmp_path)


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".png", "x" * 300, "a/" * 3000 + "a.png", "~nouser/a.png", "a\0.png", "\ud800"]
)
def test_what_no_file_can_be_called_is_refused_in_one_line(name):
    with pytest.raises(LabError, match=r"check the name|write the whole path") as caught:
        read_image(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_name_with_control_characters_reaches_no_terminal(tmp_path):
    path = tmp_path / "a\x1b[31m\n.png"
    for prepare in (lambda: None, lambda: path.write_bytes(b"x")):
        prepare()
        with pytest.raises(LabError) as caught:
            read_image(path)
        assert str(caught.value).isprintable()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_a_device_and_a_loop_of_links_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (("pipe", "a pipe or a device"), ("zero", "a pipe or a device"), ("loop", "cannot be read")):
        with pytest.raises(LabError, match=message):
            read_image(tmp_path / name)


def test_a_file_far_larger_than_its_pixels_could_be_is_refused_unread(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(LabError, match=r"a\.png is 10\.0 GB, more than the limit of 500\.0 MB: resize the image"):
        read_image(tmp_path / "a.png")


def test_a_file_that_vanishes_before_it_is_opened_gives_one_line(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", Image.fromarray(NOISE))
    size = path.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: size)
    path.unlink()
    with pytest.raises(LabError, match=r"a\.png: there is no such file"):
        read_image_file(path)


@pytest.mark.parametrize("image_format", ["eps", "pdf", "ico", "tga", "pcx", "jpeg2000", "sgi", "dds", "msp"])
def test_only_the_listed_formats_are_decoded(tmp_path, image_format, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("an image started a program"))
    image = Image.fromarray(NOISE).convert("1") if image_format == "msp" else Image.fromarray(NOISE)
    path = save(tmp_path / "a.png", image, format=image_format)
    with pytest.raises(LabError, match=r"a\.png: not an image \(PNG, JPEG, GIF, BMP, WEBP, TIFF, PPM\): convert it"):
        read_image_file(path)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm", "mpo"])
def test_each_listed_format_is_decoded(tmp_path, image_format):
    path = save(tmp_path / "a", Image.new("RGB", (16, 12), (200, 100, 50)), format=image_format)
    assert pixel(path, 5, 5) == pytest.approx([200, 100, 50], abs=3)


@pytest.mark.parametrize("image_format", ["gif", "webp", "tiff", "png"])
def test_the_header_of_an_animation_is_bounded_too(tmp_path, image_format):
    frames = [Image.new("RGB", (900, 900), color) for color in ("red", "blue")]
    path = save(tmp_path / "a", frames[0], format=image_format, save_all=True, append_images=frames[1:])
    with pytest.raises(LabError, match="more than the limit of 100,000 pixels"):
        read_image_file(path, max_pixels=100_000)


def test_a_frame_larger_than_its_animation_is_bounded(tmp_path):
    content = bytearray(save(tmp_path / "a.gif", Image.new("P", (300, 300))).read_bytes())
    content[6:10] = struct.pack("<HH", 1, 1)  # the animation's size, not the frame's
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(LabError, match="300 x 300 is more than the limit of 1,000 pixels"):
        read_image_file(tmp_path / "a.gif", max_pixels=1000)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_not_an_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(LabError, match=r"a\.png: (not an image|damaged)"):
        read_image_file(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_a_damaged_file_of_any_format_gives_one_line(tmp_path, suffix):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
    content = buffer.getvalue()
    path = tmp_path / f"a.{suffix}"
    for fraction in np.linspace(0, 0.95, 20):
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(LabError) as caught:
            read_image_file(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_no_changed_byte_gives_a_traceback(tmp_path):
    path, messages = tmp_path / "a", []
    for image_format in ("png", "jpeg", "webp", "gif", "bmp", "tiff"):
        buffer = io.BytesIO()
        Image.fromarray(NOISE).save(buffer, image_format)
        for index in range(min(150, len(buffer.getvalue()))):
            changed = bytearray(buffer.getvalue())
            changed[index] ^= 0xFF
            path.write_bytes(changed)
            try:
                read_image_file(path)
            except LabError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in messages)


def png_header(width: int, height: int) -> bytes:
    """A PNG with a header of that size and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)
    )


# Above convolab's limit, above that of Pillow's warning and above that of Pillow's error.
@pytest.mark.parametrize("side", [7072, 12_000, 60_000])
def test_an_image_of_too_many_pixels_is_refused_by_its_header(tmp_path, side, recwarn):
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with pytest.raises(LabError, match=r"a\.png: .* more than the limit of 50,000,000 pixels: resize the image"):
        read_image_file(tmp_path / "a.png")
    assert not recwarn.list


def test_the_pixel_limit_can_be_set(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(NOISE))
    assert read_image_file(path, max_pixels=35).shape == (3, 5, 7)
    with pytest.raises(LabError, match="7 x 5 is more than the limit of 34 pixels"):
        read_image_file(path, max_pixels=34)


def test_an_image_of_the_right_size_is_not_changed():
    photo = torch.from_numpy(NOISE).permute(2, 0, 1)
    assert torch.equal(resize_and_center_crop(photo, (5, 7), channels=3), photo)


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (9, 8), (80, 241), (3, 5)])
def test_the_center_is_kept_and_the_sides_are_cropped(height, width):
    photo = torch.zeros(1, height, width, dtype=torch.uint8)
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    photo[:, top : height - top, left : width - left] = 200
    assert (
        resize_and_center_crop(photo, (8, 8), channels=1).float().mean() > 180
    )  # if it is enlarged, the edges have a small influence


def test_shrinking_averages_like_an_antialiasing_filter():
    photo = torch.zeros(3, 64, 64, dtype=torch.uint8)
    photo[:, :, ::2] = 255  # stripes one pixel wide, which plain bilinear sampling would turn into bands
    small = resize_and_center_crop(photo, (8, 8), channels=3)
    assert 120 < int(small.min()) <= int(small.max()) < 136


def test_a_smooth_image_is_resized_as_by_torch():
    ramp = torch.linspace(0, 255, 90).round().expand(3, 60, 90)
    small = resize_and_center_crop(ramp.to(torch.uint8), (20, 20), channels=3).float()
    expected = torch.nn.functional.interpolate(ramp[None], (20, 30), mode="bilinear", antialias=True)[0, :, :, 5:25]
    assert (small - expected).abs().max() <= 1


def test_one_channel_is_luma_and_three_of_a_gray_image_are_equal():
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    assert resize_and_center_crop(red, (4, 4), channels=1).unique().tolist() == [76]  # 0.299 x 255
    gray = torch.full((1, 4, 4), 9, dtype=torch.uint8)
    assert resize_and_center_crop(gray, (2, 2), channels=3).unique().tolist() == [9]


def test_a_pillow_image_and_its_tensor_are_resized_alike():
    image = Image.fromarray(NOISE)
    assert torch.equal(
        resize_and_center_crop(image, (4, 4), channels=3),
        resize_and_center_crop(torch.from_numpy(NOISE).permute(2, 0, 1), (4, 4), channels=3),
    )


def test_a_wrong_number_of_channels_or_pixels_is_refused():
    photo = torch.zeros(3, 4, 4, dtype=torch.uint8)
    for wrong, size, channels in ((photo, (4, 4), 2), (photo[:2], (4, 4), 3), (photo, (0, 4), 3)):
        with pytest.raises(LabError):
            resize_and_center_crop(wrong, size, channels)


@pytest.mark.parametrize("name", SAMPLE_IMAGES)
def test_every_sample_image_can_be_read(name):
    photo = read_image(name)
    assert photo.shape[0] == 3
    assert min(photo.shape[1:]) >= 300
    assert len(photo.unique()) > 100


def test_a_misspelled_sample_gives_a_suggestion_and_a_path_is_used_as_it_is(tmp_path, monkeypatch):
    with pytest.raises(LabError, match="no file and no sample image 'chelse': did you mean 'chelsea'"):
        read_image("chelse")
    with pytest.raises(LabError, match=r"^gone/cat\.png: there is no such file"):
        read_image("gone/cat.png")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "chelsea", Image.fromarray(NOISE), format="png")
    assert read_image("./chelsea").shape == (3, 5, 7)
    assert read_image("chelsea").shape == (3, 300, 451)


@pytest.mark.slow
def test_an_image_of_one_pixel_becomes_a_constant_image(tmp_path):
    photo = read_image_file(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (10, 20, 30))))
    for crop in (None, 0.875):
        assert resize_and_center_crop(photo, (224, 224), 3, interpolation="bicubic", crop=crop).flatten(1).unique(
            dim=1
        ).tolist() == [
            [10],
            [20],
            [30],
        ]


def test_a_row_of_pixels_is_not_enlarged_before_it_is_cropped():
    assert resize_and_center_crop(
        torch.full((3, 1, 60_000), 7, dtype=torch.uint8), (224, 224), 3, crop=0.875
    ).unique().tolist() == [7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["RGBA", pytest.param("16 bits", marks=pytest.mark.long), pytest.param("CMYK", marks=pytest.mark.long)]
)
def test_a_large_image_takes_no_more_than_13_bytes_per_pixel(tmp_path, kind):
    """In a process of its own, because the peak of memory never falls."""
    side = 4000
    if kind == "16 bits":
        save(tmp_path / "a.png", Image.fromarray(np.full((side, side), 30_000, np.uint16)), compress_level=1)
    else:
        save(tmp_path / "a.tiff", Image.new(kind, (side, side), (100, 50, 20, 90)))
    code = """
import resource, sys
from convolab.data.image_io import read_image_file, resize_and_center_crop
resize_and_center_crop(read_image_file(sys.argv[1]), (224, 224), 3, interpolation="bicubic", crop=0.875)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resize_and_center_crop(read_image_file(sys.argv[2]), (224, 224), 3, interpolation="bicubic", crop=0.875)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    small = save(tmp_path / "b.png", Image.new("RGB", (50, 50)))
    result = subprocess.run(
        [sys.executable, "-c", code, small, next(tmp_path.glob("a.*"))], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) / side**2 < 13.5


@pytest.mark.slow
def test_a_limit_above_that_of_pillow_is_applied(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    (tmp_path / "a.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(
        LabError,
        match=r"20000 x 20000 is more than the limit of 300,000,000 pixels|far more than the limit of 300,000,000",
    ):
        read_image_file(tmp_path / "a.png", max_pixels=300_000_000)
    with pytest.raises(LabError, match="damaged"):  # allowed, and then found to have no pixels
        read_image_file(tmp_path / "a.png", max_pixels=400_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_crop_outside_of_its_range_is_refused():
    for crop in (0.0, -1.0, 1.1):
        with pytest.raises(LabError, match="the crop is"):
            resize_and_center_crop(torch.zeros(3, 4, 4, dtype=torch.uint8), (2, 2), 3, crop=crop)
