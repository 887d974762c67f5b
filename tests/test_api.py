"""What a person calls in Python."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from support.shape_checks import without_shape_checks

import convolab
from convolab.api import explain, fool, locate, summary, train
from convolab.arguments import resolve_classifier, resolve_image
from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.inspection.adversarial.fool import fool_classifier
from convolab.inspection.localization.locate import locate_objects
from convolab.models import pretrained as pretrained_module
from convolab.training.callbacks import Callbacks
from convolab.training.optim import Adam
from convolab.training.recipe import Recipe
from convolab.training.run import Run


@pytest.mark.slow
def test_a_bundled_network_is_loaded_without_a_request_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module, "is_reachable", lambda url: pytest.fail(f"requested {url}"))
    net = resolve_classifier("efficientnet_lite0")
    assert net.validate_inputs
    assert not net.training


@pytest.mark.slow
def test_without_access_to_the_hub_only_its_cache_is_read_and_the_setting_is_restored_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import timm

    settings = []

    def create(*_: object, **__: object) -> None:
        settings.append(constants.HF_HUB_OFFLINE)
        raise OSError("not in the cache")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained_module, "is_reachable", lambda url: False)
    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(LabError, match="its hub cannot be reached"):
        resolve_classifier("timm/resnet18")
    assert settings == [True]
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("name", ["efficientnet_lite9", "torchvision/resnet18", "no_such_run"])
def test_a_name_that_is_neither_a_pretrained_network_nor_a_run_is_refused(name: str) -> None:
    with pytest.raises(LabError, match=f"'{name}' is neither a pretrained network nor the folder of a run"):
        resolve_classifier(name)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError):
        resolve_classifier(str(tmp_path))


# ---- train


@pytest.mark.slow
def test_keywords_sections_and_overrides_are_the_recipe_s_keys(tmp_path: Path) -> None:
    run = train(
        "simple_convnet",
        epochs=1,
        lr=0.2,
        batch_size=64,
        seed=3,
        optimizer="adam",
        augment=["crop:1"],
        model={"channels": [4]},
        overrides={"data.limit": 100},
        out=tmp_path / "run",
    )
    recipe = run.recipe
    assert (recipe.training.epochs, recipe.training.batch_size, recipe.training.seed) == (1, 64, 3)
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adam", 0.2)
    assert recipe.data.augment == ("crop:1",)
    assert (recipe.data.limit, list(recipe.model.options["channels"])) == (100, [4])


@pytest.mark.slow
def test_every_section_may_be_a_dict_that_of_the_data_optimizer_and_schedule_too(tmp_path: Path) -> None:
    recipe = train(
        "shallow_net",
        {"name": "digits", "limit": 200},
        epochs=1,
        optimizer={"name": "adam", "lr": 0.2},
        schedule={"name": "constant"},
        loss={"name": "focal"},
        out=tmp_path / "run",
    ).recipe
    assert (recipe.data.name, recipe.data.limit) == ("digits", 200)
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adam", 0.2)
    assert recipe.schedule.name == "constant"
    assert recipe.loss.name == "focal"
    with pytest.raises(LabError, match=r"optimizer\.lr = .* give a number"):
        train("shallow_net", lr={"a": 1}, out=tmp_path / "other")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_the_python_call_trains_the_same_bits_as_its_recipe(tmp_path: Path) -> None:
    recipe = Recipe.from_dict({"model": {"name": "shallow_net"}, "training": {"epochs": 1}})
    silent = Run.start(recipe, load("digits"), tmp_path / "silent")
    shown = train("shallow_net", epochs=1, out=str(tmp_path / "shown"))
    for name in ("best.safetensors", "last.safetensors", "state.safetensors"):
        ours, theirs = load_file(silent.folder / name), load_file(shown.folder / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"epoch": 3}, "train has no keyword 'epoch': did you mean 'epochs'?"),
        ({"learning_rate": 3}, "train has no keyword 'learning_rate': did you mean 'lr'?"),
        ({"dropout": 0.2}, "train has no keyword 'dropout': give model={'dropout': ...}"),
        ({"weight_decay": 0}, "train has no keyword 'weight_decay': give optimizer={'weight_decay': ...}"),
        ({"model": 3}, "model = 3: give the section's keys as a dict"),
        ({"model": {"chanels": [3]}}, "chanels"),
        ({"epochs": 0}, "training.epochs = 0"),
        ({"lr": -1.0}, "optimizer.lr = -1.0"),
        ({"overrides": {"optimizer.rate": 1}}, "a recipe has no key 'optimizer.rate'"),
        ({"data": "cifar01"}, "did you mean 'cifar10'"),
        ({"data": "mnist"}, "did you mean torchvision:MNIST@PATH"),
        ({"batch_size": 100_000}, "a batch of 100000 is larger"),
    ],
)
def test_a_wrong_keyword_is_one_line_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keywords: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError) as error:
        train("shallow_net", **keywords)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_stopped_run_resumes_without_naming_its_data_again(tmp_path: Path) -> None:
    class StopAfterThree(Callbacks):
        steps = 0

        def on_step(self, trainer: object) -> None:
            self.steps += 1

        def should_stop(self) -> bool:
            return self.steps == 3

    run = train("shallow_net", epochs=2, out=tmp_path / "run", callbacks=StopAfterThree())
    assert run.status == "stopped"
    assert run.resume().status == "finished"


# ---- images and networks


PHOTO = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize(
    "image",
    [
        PHOTO,
        PHOTO / 255,
        torch.from_numpy(PHOTO).permute(2, 0, 1),
        torch.from_numpy(PHOTO).permute(2, 0, 1).float() / 255,
        torch.from_numpy(PHOTO),
        PHOTO.transpose(2, 0, 1),
        Image.fromarray(PHOTO),
        PHOTO.astype(np.int64),
    ],
)
def test_an_image_in_memory_is_the_same_bytes_in_any_form(image: Any) -> None:
    name, pixels = resolve_image(image)
    assert name == "the image"
    assert torch.equal(pixels, torch.from_numpy(PHOTO).permute(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int8, np.uint64])
def test_an_array_of_any_whole_numbers_up_to_255_is_an_image_and_others_are_one_line(dtype: Any) -> None:
    (_, pixels), *_ = [resolve_image(np.full((4, 6, 3), 100, dtype))]
    assert pixels.unique().tolist() == [100]
    if dtype != np.int8:
        with pytest.raises(LabError, match="not in 0 to 255"):
            resolve_image(np.full((4, 6, 3), 300, dtype))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 6, 3), 2.0), "not in \\[0, 1\\]"),
        (np.full((4, 6, 3), np.nan), "not in \\[0, 1\\]"),
        (np.full((4, 6, 3), 300), "not in 0 to 255"),
        (np.zeros((4, 6, 2)), "give \\[H, W, C\\]"),
        (np.zeros((1, 4, 6, 3)), "give \\[H, W, C\\]"),
        (np.zeros((0, 6, 3)), "has no pixels"),
        ("no_such_image", "there is no file and no sample image"),
        (torch.nn.Identity(), "the image comes first"),
    ],
)
def test_what_is_no_image_is_one_line(image: Any, message: str) -> None:
    with pytest.raises(LabError, match=message):
        resolve_image(image)


@pytest.mark.slow
def test_an_array_is_explained_fooled_and_located_like_a_file(tmp_path: Path) -> None:
    run = train("simple_convnet", epochs=1, model={"channels": [4, 8]}, out=tmp_path / "run")
    image = load("digits").test[0][0]
    explained = explain(image, run, methods="gradient")
    assert explained.metrics["target"]["class"] in load("digits").test.classes
    prediction = explained.metrics["target"]["index"]
    fooled = fool([image, "noise"], (prediction + 1) % 10, run.folder, max_steps=5)
    assert [entry["image"] for entry in fooled.metrics["images"]] == ["the image", "noise"]
    located = locate(torch.nn.functional.pad(image, (4, 4, 4, 4)), run, targets=prediction, alignment="resize")
    assert list(located.metrics["classes"]) == [str(prediction)]


@pytest.mark.slow
def test_networks_that_are_called_alike_all_count() -> None:
    from convolab.arguments import resolve_several
    from convolab.models.pretrained import pretrained

    net, other = pretrained("efficientnet_lite0"), pretrained("efficientnet_lite1")
    assert resolve_several([net, other, net]) == {
        "ImageClassifier": net,
        "ImageClassifier 2": other,
        "ImageClassifier 3": net,
    }
    assert resolve_several({"mine": net, "yours": other}) == {"mine": net, "yours": other}


@pytest.mark.slow
def test_a_summary_takes_a_name_a_run_its_folder_a_network_or_what_builds_one(tmp_path: Path) -> None:
    run = train("shallow_net", epochs=1, out=tmp_path / "run")
    by_name = summary("shallow_net", (1, 8, 8))
    for given in (run, run.folder, str(run.folder)):
        assert summary(given).num_parameters == by_name.num_parameters
        assert summary(given).network == str(run.folder)
        assert summary(given).num_frozen == 0
    assert summary(run.net()).macs == by_name.macs
    assert summary(lambda: torch.nn.Linear(3, 2), [3]).macs == 6
    with pytest.raises(LabError, match="give it, such as 3x32x32"):
        summary(torch.nn.Linear(3, 2))


@pytest.mark.parametrize("network", [torch.nn.Linear(3, 4), torch.nn.Linear])
def test_a_network_that_is_no_name_is_answered_with_what_takes_it(network: Any) -> None:
    undecorated = getattr(train, "__wrapped__", train)
    with pytest.raises(LabError, match=r"convolab.register\(it, 'name'\).*convolab.fit\(net, dataset\)"):
        undecorated(network)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"data": np.zeros((4, 8, 8), np.uint8)}, "save arrays as an .npz file and give 'npz:PATH'"),
        ({"overrides": [1]}, r"overrides = \[1\] is not a dict of recipe keys"),
    ],
)
def test_an_array_for_a_name_and_a_list_for_a_dict_are_one_line(keywords: dict[str, Any], message: str) -> None:
    undecorated = getattr(train, "__wrapped__", train)
    with pytest.raises(LabError, match=message):
        undecorated("shallow_net", **keywords)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: convolab.explain("chelsea", method="gradient"),
            "explain has no keyword 'method': did you mean 'methods'?",
        ),
        (lambda: convolab.explain("chelsea", checks=True), "explain has no keyword 'checks': did you mean 'check'?"),
        (
            lambda: convolab.summary("shallow_net", shape=(1, 8, 8)),
            "summary has no keyword 'shape': did you mean 'input_shape'?",
        ),
        (lambda: convolab.locate("chelsea", target="cat"), "locate has no keyword 'target': did you mean 'targets'?"),
        (
            lambda: convolab.locate("chelsea", treshold=0.5),
            "locate has no keyword 'treshold': did you mean 'threshold'?",
        ),
        (lambda: convolab.locate("chelsea", window=1), "locate has no keyword 'window': did you mean 'sliding_window"),
        (
            lambda: convolab.fool("chelsea", "goldfish", steps=3),
            "fool has no keyword 'steps': did you mean 'max_steps'?",
        ),
        (
            lambda: convolab.fool("chelsea", "goldfish", step_siz=1),
            "fool has no keyword 'step_siz': did you mean 'step_size'?",
        ),
        (
            lambda: convolab.fool("chelsea", "goldfish", budgets="none"),
            "fool has no keyword 'budgets': did you mean 'budget'?",
        ),
    ],
)
def test_a_wrong_keyword_of_an_inspection_names_the_nearest(call: Callable[[], object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        call()


@pytest.mark.parametrize(
    ("ours", "below", "given"),
    [
        (fool, fool_classifier, {"image_names", "images", "net", "on_progress", "surrogates", "target", "victims"}),
        (locate, locate_objects, {"image", "image_name", "net", "on_progress", "scales", "targets", "top"}),
    ],
)
def test_every_setting_of_fool_and_locate_is_a_keyword_with_its_type_and_default(
    ours: Callable[..., object], below: Callable[..., object], given: set[str]
) -> None:
    known = inspect.signature(ours).parameters
    assert not [each for each in known.values() if each.kind is each.VAR_KEYWORD]
    for name, parameter in inspect.signature(below).parameters.items():
        if name not in given:
            assert (known[name].default, known[name].annotation) == (parameter.default, parameter.annotation), name


def test_a_shape_is_numbers_or_text() -> None:
    assert summary("shallow_net", "1x8x8").macs == summary("shallow_net", (1, 8, 8)).macs
    with pytest.raises(LabError, match="is not a shape"):
        summary("shallow_net", "large")


@without_shape_checks
def test_arrays_and_their_numbers_in_settings_and_shapes_are_what_lists_and_python_s_numbers_are() -> None:
    channels, several = np.array([8, 16]), [np.int64(8), np.int64(16)]
    plain = Recipe.from_dict({"model": {"name": "simple_convnet", "channels": [8, 16]}, "optimizer": {"lr": 0.5}})
    for given, rate in ((channels, np.float32(0.5)), (several, np.array(0.5)), (torch.tensor([8, 16]), 0.5)):
        model: Any = {"name": "simple_convnet", "channels": given}
        assert Recipe.from_dict({"model": model, "optimizer": {"lr": rate}}).key == plain.key
        assert Recipe().with_overrides({"model.channels": given, "optimizer.lr": rate}).key == plain.key
        by_name = summary("simple_convnet", np.array([1, 8, 8]), model={"channels": given}, batch_size=np.int64(2))
        assert json.loads(json.dumps(by_name.to_dict()))["input_shape"] == [1, 8, 8]
        net = convolab.build("simple_convnet", np.array([1, 8, 8]), np.int64(10), channels=given)
        assert by_name.num_parameters == sum(p.numel() for p in net.parameters())
    assert Adam(betas=np.array([0.5, 0.75])).betas == (0.5, 0.75)
    assert Recipe().with_seed(np.int64(3)).key == Recipe().with_seed(3).key


@pytest.mark.slow
@without_shape_checks
def test_a_training_and_a_study_take_arrays_and_their_numbers(tmp_path: Path) -> None:
    run = train(
        "simple_convnet", model={"channels": np.array([4, 8])}, lr=np.float32(0.5), epochs=np.int64(1), out=tmp_path
    )
    assert (run.recipe.model.options["channels"], run.recipe.optimizer.lr) == ((4, 8), 0.5)
    assert len(run.extend(np.int64(2), tmp_path.with_name("longer")).history) == 2
    with pytest.raises(LabError, match=r"optimizer.lr = \[0.1, 0.2\]: give a number"):
        train(lr=np.array([0.1, 0.2]))
    arms: Any = {"a": {"model.channels": np.array([8, 16])}, "b": {}}
    sections: Any = {"width": {"arms": arms, "contrasts": [{"arm": "a", "baseline": "b"}]}}
    study = convolab.Study.from_dict({"name": "x", "seeds": np.array([0, 1]), "sections": sections})
    assert (
        study.to_toml()
        == convolab.Study.from_dict(
            {
                "name": "x",
                "seeds": [0, 1],
                "sections": {"width": {**sections["width"], "arms": {"a": {"model.channels": [8, 16]}, "b": {}}}},
            }
        ).to_toml()
    )
    spread, power = np.float32(0.5), np.float32(0.75)
    assert (
        convolab.power(study, spread=spread, power=power).rows() == convolab.power(study, spread=0.5, power=0.75).rows()
    )
    assert convolab.coursework(seeds=np.array([0, 1])).seeds == (0, 1)


def test_settings_that_hold_themselves_are_one_line() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(LabError, match="nested too deeply"):
        train("simple_convnet", model={"channels": endless})


def test_a_folder_that_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(LabError, match="File name too long"):
        convolab.train("shallow_net", epochs=1, out="x" * 300 + "/run")
