"""The command `convolab explain`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolab.cli.findings import net_file_name
from convolab.cli.options import DEFAULT_NET
from convolab.models.pretrained import DEFAULT_NETWORK


@pytest.fixture
def tiny_run(run_cli, tmp_path):
    run_cli(
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
def test_a_sample_is_explained_with_a_figure_arrays_and_metrics(run_cli, tmp_path):
    result = run_cli("explain", "chelsea", "--method", "gradient,gradcam", "--threads", 1)
    assert result.code == 0
    assert "chelsea: tiger cat" in result.out
    assert "image: explain-chelsea.png; raw arrays: explain-chelsea.npz" in result.out
    with Image.open(tmp_path / "explain-chelsea.png") as figure:
        assert figure.width > 900
    with np.load(tmp_path / "explain-chelsea.npz") as arrays:
        assert arrays["gradcam"].shape == (7, 7)
    metrics = json.loads((tmp_path / "explain-chelsea.json").read_text())
    assert metrics["net"] == "efficientnet_lite0"


@pytest.mark.slow
@pytest.mark.parametrize(("user_value", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_the_user_chose_otherwise(tmp_path, user_value, expected):
    """libgomp prints its own policy. With active waiting a busy neighbor makes an explanation seven times slower."""
    command = ["explain", "chelsea", "--method", "gradcam"]
    code = f"import sys; from convolab.cli.main import main; sys.argv[1:] = {command}; main()"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | {
        "OMP_DISPLAY_ENV": "TRUE"
    }
    environment |= {"OMP_WAIT_POLICY": user_value} if user_value else {}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0
    if "OMP_WAIT_POLICY" not in result.stderr:
        pytest.skip("torch's threads here are not OpenMP's")
    assert f"OMP_WAIT_POLICY = '{expected}'" in result.stderr


@pytest.mark.slow
def test_json_output_is_the_metrics_and_nothing_else(run_cli):
    result = run_cli("explain", "coffee", "--method", "gradcam", "--target", "espresso", "--json")
    assert json.loads(result.out)["target"]["index"] == 967
    assert result.err == ""


@pytest.mark.slow
def test_a_run_is_explained_like_a_pretrained_network(run_cli, tmp_path, tiny_run):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "three.png")
    result = run_cli(
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
    found = json.loads(result.out)
    assert found["target"]["class"] == "3"
    assert found["methods"]["cam"]["shape"] == [2, 2]  # of 8 x 8 pixels, pooled twice
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"three.png", "three.npz", "three.json"}


@pytest.mark.slow
def test_several_images_go_to_a_folder_and_the_checks_are_averaged_over_them(run_cli, tmp_path, tiny_run):
    for name in ("one", "two"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (8, 8), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    result = run_cli(
        "explain", "one.png", "two.png", "--net", tiny_run, "--method", "gradient", "--check", "--out", "both"
    )
    assert result.code == 0, result.err
    table = [line.split("\t") for line in result.out.splitlines() if "\t" in line]
    assert [row[:2] for row in table] == [["map", "images"], ["gradient", "2"]]
    assert len(table[0]) == len(table[1]) == 10
    assert all(" to " in cell for cell in table[1][2:6])
    assert {path.name for path in (tmp_path / "both").glob("*.png")} == {"explain-one.png", "explain-two.png"}


@pytest.mark.slow
def test_each_of_several_files_is_read_when_it_is_used_and_not_kept_in_memory(tmp_path, monkeypatch):
    import gc
    import weakref

    from convolab.cli.findings import lazy_image
    from convolab.data import image_io

    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    references, original = [], image_io.read_image

    def record_reference(*args):
        image = original(*args)
        references.append(weakref.ref(image))
        return image

    monkeypatch.setattr(image_io, "read_image", record_reference)
    reread, cached = (lazy_image(str(tmp_path / "a.png"), 100, cache=cache) for cache in (False, True))
    gc.collect()
    assert [ref() is None for ref in references] == [True, False]
    assert reread().shape == cached().shape == (3, 5, 9)
    assert len(references) == 3


@pytest.mark.timing
def test_ctrl_c_leaves_no_partly_written_file(tmp_path, tiny_run):
    (tmp_path / "many").mkdir()
    for number in range(200):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 30), dtype=np.uint8)).save(
            tmp_path / "many" / f"{number}.png"
        )
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from convolab.cli.main import main; sys.argv[0] = 'convolab'; main()"
    )
    args = [
        "explain",
        *sorted(map(str, (tmp_path / "many").iterdir())),
        "--net",
        tiny_run,
        "--method",
        "gradient,gradcam",
        "--out",
        "maps",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "maps").glob("*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode not in (0, None)
    assert "Traceback" not in error
    files = list((tmp_path / "maps").iterdir())
    assert 6 <= len(files) < 600
    for path in files:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".npz":
            assert np.load(path)["gradient"].shape == (8, 8)
        else:
            assert path.suffix == ".json"
            assert json.loads(path.read_text())["summary"]


@pytest.mark.slow
def test_a_damaged_last_image_is_refused_before_the_first_is_explained(run_cli, tmp_path):
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    result = run_cli("explain", "a.png", "b.png", "--method", "gradcam")
    assert result.code == 2
    assert "convolab: b.png: " in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["chelsea", "coffee", "--out", "both.png"], "2 images do not fit in one both.png: give --out a folder"),
        (
            ["chelsea", "--out", "cat.jpg"],
            "--out cat.jpg: explain writes .png, .npz, .json: give a name with one of these endings",
        ),
        (["chelse"], "did you mean 'chelsea'"),
        (["gone.png"], "gone.png: there is no such file"),
        (
            ["chelsea", "--net", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (["chelsea", "--net", "."], "is not a run folder"),
        (["chelsea", "--method", "gradcan"], "did you mean 'gradcam'"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--samples", "many"], "many samples of integrated_gradients: give a whole number"),
        (["chelsea", "--max-pixels", "1000"], "451 x 300 is more than the limit of 1,000 pixels"),
        (["http://127.0.0.1:9/cat.png"], "on this machine or a private network"),
        (["http://169.254.169.254/latest/meta-data/"], "on this machine or a private network"),
        (["file:///etc/passwd"], "is not an http(s) URL"),
        (["chelsea", "chelsea"], "several images would be called explain-chelsea"),
    ],
)
def test_a_wrong_input_gives_one_line_and_writes_nothing(run_cli, tmp_path, args, message):
    result = run_cli("explain", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_for_a_network_without_a_feature_map_the_error_names_the_methods_that_need_none(run_cli, tmp_path):
    run_cli("train", "shallow_net", "--set", "training.epochs=1", "--set", "data.limit=200", "--out", tmp_path / "flat")
    result = run_cli("explain", "chelsea", "--net", "flat", "--method", "gradcam")
    assert result.code == 2
    assert "no feature map, because it has no convolution" in result.err
    assert "these methods need none: gradient, smoothgrad, integrated_gradients, occlusion" in result.err
    assert (
        run_cli(
            "explain", "chelsea", "--net", "flat", "--method", "gradient,smoothgrad,integrated_gradients,occlusion"
        ).code
        == 0
    )


@pytest.mark.slow
def test_the_old_name_of_a_method_is_accepted_with_one_line_that_gives_the_new_name(run_cli):
    result = run_cli("explain", "chelsea", "--method", "integrated", "--json")
    assert result.code == 0
    assert result.err == "convolab: the method integrated is now called integrated_gradients\n"
    assert list(json.loads(result.out)["methods"]) == ["integrated_gradients"]


@pytest.mark.slow
def test_the_files_of_two_networks_do_not_meet_and_the_figure_names_the_network(run_cli, tmp_path, tiny_run) -> None:
    for net in (tiny_run, "efficientnet_lite0"):
        result = run_cli("explain", "chelsea", "--net", net, "--method", "gradient")
        assert result.code == 0, result.err
        name = "explain-chelsea" if net == "efficientnet_lite0" else f"explain-chelsea-{net_file_name(net)}"
        assert json.loads((tmp_path / f"{name}.json").read_text())["net"] == net
    assert len(list(tmp_path.glob("explain-chelsea*.png"))) == 2


def test_the_default_network_is_that_of_the_package() -> None:
    assert DEFAULT_NET == DEFAULT_NETWORK


@pytest.mark.parametrize(
    ("net", "name"),
    [("runs/a", "runs-a"), ("other/a", "other-a"), ("timm/resnet18.a1", "timm-resnet18-a1"), ("x" * 300, "x" * 60)],
)
def test_a_networks_name_becomes_a_part_of_a_files_name(net: str, name: str) -> None:
    assert net_file_name(net) == name
    assert net_file_name(str(Path.cwd() / net)) == name
