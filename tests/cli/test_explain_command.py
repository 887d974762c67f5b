"""convolab explain, as a person types it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def tiny_run(lab, tmp_path):
    lab(
        "train",
        "simple_convnet",
        "--set",
        "training.epochs=1",
        "--set",
        "data.limit=200",
        "--set",
        "model.channels=[8, 16]",
        "--out",
        tmp_path / "tiny",
    )
    return "tiny"


@pytest.mark.slow
def test_a_sample_is_explained_with_a_figure_arrays_and_numbers(lab, tmp_path):
    result = lab("explain", "chelsea", "--method", "gradient,gradcam", "--threads", 1)
    assert result.code == 0
    assert "chelsea: tiger cat" in result.out
    assert "image: explain-chelsea.png; raw arrays: explain-chelsea.npz" in result.out
    with Image.open(tmp_path / "explain-chelsea.png") as figure:
        assert figure.width > 900
    with np.load(tmp_path / "explain-chelsea.npz") as arrays:
        assert arrays["gradcam"].shape == (7, 7)
    numbers = json.loads((tmp_path / "explain-chelsea.json").read_text())
    assert numbers["net"] == "efficientnet_lite0"


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_a_person_chose_otherwise(tmp_path, chosen, kept):
    """libgomp says itself what it will do: a busy neighbour would else make an explanation seven times slower."""
    command = ["explain", "chelsea", "--method", "gradcam"]
    code = f"import sys; from convolab.cli.main import main; sys.argv[1:] = {command}; main()"
    surroundings = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | {
        "OMP_DISPLAY_ENV": "TRUE"
    }
    surroundings |= {"OMP_WAIT_POLICY": chosen} if chosen else {}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("torch's threads here are not OpenMP's")
    assert f"OMP_WAIT_POLICY = '{kept}'" in done.stderr


@pytest.mark.slow
def test_json_is_the_numbers_and_nothing_else(lab):
    result = lab("explain", "coffee", "--method", "gradcam", "--target", "espresso", "--json")
    assert json.loads(result.out)["target"]["index"] == 967
    assert result.err == ""


@pytest.mark.slow
def test_a_run_is_explained_like_a_pretrained_network(lab, tmp_path, tiny_run):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "three.png")
    result = lab(
        "explain",
        "three.png",
        "--net",
        tiny_run,
        "--method",
        "gradient,cam,guided",
        "--target",
        "3",
        "--out",
        "maps/three.png",
        "--json",
    )
    assert result.code == 0, result.err
    assert (
        json.loads(result.out)["methods"]["cam"]["shape"] == [1, 1] or json.loads(result.out)["target"]["class"] == "3"
    )
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"three.png", "three.npz", "three.json"}


@pytest.mark.slow
def test_several_images_go_to_a_folder_and_the_checks_are_averaged_over_them(lab, tmp_path, tiny_run):
    for name in ("one", "two"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (8, 8), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    result = lab("explain", "one.png", "two.png", "--net", tiny_run, "--method", "gradient", "--check", "--out", "both")
    assert result.code == 0, result.err
    table = [line.split("\t") for line in result.out.splitlines() if "\t" in line]
    assert [row[:2] for row in table] == [["map", "images"], ["gradient", "2"]]
    assert len(table[0]) == len(table[1]) == 10
    assert all(" to " in cell for cell in table[1][2:6])
    assert {path.name for path in (tmp_path / "both").glob("*.png")} == {"explain-one.png", "explain-two.png"}


def test_each_of_several_files_is_read_in_its_turn_and_not_held_meanwhile(tmp_path, monkeypatch):
    import gc
    import weakref

    from convolab.cli.commands.explain import lazy_image
    from convolab.data import image_io

    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    read, real = [], image_io.read_image

    def counted(*given):
        found = real(*given)
        read.append(weakref.ref(found))
        return found

    monkeypatch.setattr(image_io, "read_image", counted)
    again, kept = (lazy_image(str(tmp_path / "a.png"), 100, cache=keep) for keep in (False, True))
    gc.collect()
    assert [ref() is None for ref in read] == [True, False]
    assert again().shape == kept().shape == (3, 5, 9)
    assert len(read) == 3


@pytest.mark.timing
def test_ctrl_c_leaves_no_part_of_a_file(tmp_path, tiny_run):
    (tmp_path / "many").mkdir()
    for number in range(200):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 30), dtype=np.uint8)).save(
            tmp_path / "many" / f"{number}.png"
        )
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from convolab.cli.main import main; sys.argv[0] = 'convolab'; main()"
    )
    words = [
        "explain",
        *sorted(map(str, (tmp_path / "many").iterdir())),
        "--net",
        tiny_run,
        "--method",
        "gradient,gradcam",
        "--out",
        "maps",
    ]
    working = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "maps").glob("*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    working.send_signal(signal.SIGINT)
    _, error = working.communicate(timeout=300)
    assert working.returncode not in (0, None)
    assert "Traceback" not in error
    left = list((tmp_path / "maps").iterdir())
    assert 6 <= len(left) < 600
    for path in left:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".npz":
            assert np.load(path)["gradient"].shape == (8, 8)
        else:
            assert path.suffix == ".json"
            assert json.loads(path.read_text())["summary"]


@pytest.mark.slow
def test_a_damaged_last_image_is_refused_before_the_first_is_explained(lab, tmp_path):
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    result = lab("explain", "a.png", "b.png", "--method", "gradcam")
    assert result.code == 2
    assert "convolab: b.png: " in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chelsea", "coffee", "--out", "both.png"], "2 images do not fit in one both.png: give --out a folder"),
        (["chelsea", "--out", "cat.jpg"], "--out cat.jpg: images are written as .png"),
        (["chelse"], "did you mean 'chelsea'"),
        (["gone.png"], "gone.png: there is no such file"),
        (
            ["chelsea", "--net", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (["chelsea", "--net", "."], "is not a run folder"),
        (["chelsea", "--method", "gradcan"], "did you mean 'gradcam'"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--max-pixels", "1000"], "451 x 300 is more than the limit of 1,000 pixels"),
        (["http://127.0.0.1:9/cat.png"], "on this machine or a private network"),
        (["http://169.254.169.254/latest/meta-data/"], "on this machine or a private network"),
        (["file:///etc/passwd"], "is not an http(s) URL"),
        (["chelsea", "chelsea"], "several images would be called explain-chelsea"),
    ],
)
def test_a_wrong_input_is_one_line_and_nothing_is_written(lab, tmp_path, words, said):
    result = lab("explain", *words)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_for_a_network_without_a_feature_map_the_methods_that_need_none_are_named(lab, tmp_path):
    lab("train", "shallow_net", "--set", "training.epochs=1", "--set", "data.limit=200", "--out", tmp_path / "flat")
    result = lab("explain", "chelsea", "--net", "flat", "--method", "gradcam")
    assert result.code == 2
    assert "no feature map, because it has no convolution" in result.err
    assert "these methods need none: gradient, smoothgrad, integrated_gradients, occlusion" in result.err
    assert (
        lab(
            "explain", "chelsea", "--net", "flat", "--method", "gradient,smoothgrad,integrated_gradients,occlusion"
        ).code
        == 0
    )


@pytest.mark.slow
def test_the_old_name_of_a_method_is_taken_with_one_line_that_gives_the_new_one(lab):
    result = lab("explain", "chelsea", "--method", "integrated", "--json")
    assert result.code == 0
    assert result.err == "convolab: the method integrated is now called integrated_gradients\n"
    assert list(json.loads(result.out)["methods"]) == ["integrated_gradients"]
