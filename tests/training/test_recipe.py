"""Recipes: any error in one is reported in one line, and equal recipes have equal keys."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from convolab.core.errors import LabError
from convolab.training.recipe import Recipe, parse_override

EXAMPLE = """
[data]
name = "cifar10"
validation = 0.1
augment = ["crop:4", "flip"]

[model]
name = "simple_convnet"
batch_norm = true
residual = false
channels = [16, 32, 64]

[optimizer]
name = "sgd"
lr = 0.01
momentum = 0.9
weight_decay = 5e-4

[schedule]
name = "step"
step_size = 5
gamma = 0.1

[training]
epochs = 10
batch_size = 128
seed = 0
precision = "fp32"
"""

# Another value for every key of a recipe; `test_the_table_of_other_values_has_every_key` checks that none is missing.
OTHER_VALUES: dict[str, Any] = {
    "data.name": "cifar10",
    "data.validation": 0.2,
    "data.limit": 500,
    "data.image_size": 48,
    "data.augment": ["flip"],
    "model.name": "shallow_net",
    "model.channels": [16, 32],
    "model.batch_norm": False,
    "model.residual": True,
    "model.freeze": ["features.0.*"],
    "optimizer.name": "adam",
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.8,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "cosine",
    "schedule.warmup": 1.0,
    "schedule.step_size": 6,
    "schedule.gamma": 0.5,
    "training.epochs": 11,
    "training.batch_size": 64,
    "training.seed": 1,
    "training.precision": "bf16",
    "training.label_smoothing": 0.1,
    "training.winograd": True,
    "training.clip_norm": 1.0,
    "training.ema": 0.99,
    "training.patience": 3,
    "training.goal": 0.9,
    "training.exact": False,
    "metrics.train": "eval_pass",
    "metrics.test_views": 2,
}

small = st.floats(0.001, 0.999)
recipe_values = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["digits", "cifar10", "fashion_mnist", "folder:my pets", 'folder:"é\\']),
                "validation": st.floats(0, 0.999),
                "limit": st.integers(1, 10**6),
                "image_size": st.integers(8, 512),
                "augment": st.lists(st.sampled_from(["flip", "crop:2", "mixup:0.25", "rotate"]), max_size=3),
            },
        ),
        "model": st.one_of(
            st.fixed_dictionaries({"name": st.just("shallow_net")}, optional={"hidden": st.integers(1, 500)}),
            st.fixed_dictionaries(
                {}, optional={"channels": st.lists(st.integers(1, 99), max_size=4), "batch_norm": st.booleans()}
            ),
        ),
        "optimizer": st.one_of(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["adam", "adamw"])}, optional={"lr": small, "betas": st.tuples(small, small)}
            ),
            st.fixed_dictionaries(
                {}, optional={"lr": st.floats(1e-300, 1e300), "momentum": small, "nesterov": st.booleans()}
            ),
        ),
        "schedule": st.one_of(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["constant", "cosine", "linear", "one_cycle"])},
                optional={"warmup": st.floats(0, 5)},
            ),
            st.fixed_dictionaries({}, optional={"step_size": st.integers(1, 99), "gamma": st.floats(0, 1)}),
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.integers(1, 999),
                "seed": st.integers(0, 2**64),
                "clip_norm": small,
                "patience": st.integers(1, 9),
            },
        ),
        "metrics": st.fixed_dictionaries(
            {}, optional={"train": st.sampled_from(["running", "eval_pass"]), "test_views": st.sampled_from([2, 6])}
        ),
    },
)


def error_message(values: dict[str, Any]) -> str:
    """The message, of one line, of the error about values that are not a recipe."""
    with pytest.raises(LabError) as caught:
        Recipe.from_dict(values)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_example_is_parsed_to_its_values(tmp_path: Path):
    (tmp_path / "example.toml").write_text(EXAMPLE)
    recipe = Recipe.read(tmp_path / "example.toml")
    assert (recipe.data.name, recipe.data.validation, recipe.data.augment, recipe.data.limit) == (
        "cifar10",
        0.1,
        ("crop:4", "flip"),
        None,
    )
    assert recipe.model.name == "simple_convnet"
    assert recipe.model.options == {"batch_norm": True, "residual": False, "channels": (16, 32, 64)}
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (
        "sgd",
        0.01,
        0.9,
        5e-4,
    )
    assert (recipe.schedule.name, recipe.schedule.step_size, recipe.schedule.gamma) == ("step", 5, 0.1)
    training = recipe.training
    assert (training.epochs, training.batch_size, training.seed, training.precision) == (10, 128, 0, "fp32")


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(recipe_values)
def test_a_recipe_written_as_toml_and_read_again_is_equal_and_has_the_same_key(values: dict[str, Any]):
    recipe = Recipe.from_dict(values)
    parsed = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
    assert parsed == recipe
    assert parsed.key == recipe.key
    assert parsed.to_toml() == recipe.to_toml()


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(recipe_values, recipe_values)
def test_two_recipes_have_one_key_exactly_if_they_are_equal(one: dict[str, Any], other: dict[str, Any]):
    a, b = Recipe.from_dict(one), Recipe.from_dict(other)
    assert (a.key == b.key) == (a == b)


def test_a_recipe_written_to_a_file_is_read_back_equal(tmp_path: Path):
    recipe = Recipe.from_dict({"data": {"name": "folder:häuser", "limit": 7}})
    recipe.write(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe


def test_the_key_does_not_depend_on_what_was_left_out_or_on_the_order_or_on_writing_1_as_1_0():
    full = Recipe().to_dict()
    backwards = {section: dict(reversed(keys.items())) for section, keys in reversed(full.items())}
    integers = {"data": {"validation": 0}, "optimizer": {"lr": 1}}
    assert Recipe.from_dict({}).key == Recipe.from_dict(full).key == Recipe.from_dict(backwards).key == Recipe().key
    assert (
        Recipe.from_dict(integers).key == Recipe.from_dict({"data": {"validation": 0.0}, "optimizer": {"lr": 1.0}}).key
    )
    assert Recipe.from_dict({"training": {"clip_norm": None}}).key == Recipe().key


def test_the_table_of_other_values_has_every_key():
    recipe = Recipe()
    known = {
        f"{section}.{key}"
        for section, part in recipe  # sections that may be left out have tests of their own
        if part is not None
        for key in type(part).model_fields
    }
    known -= {"schedule.warmup_start"}  # says nothing without a warm-up, and is left out there
    known -= {"model.weights", "model.weights_sha256", "model.pretrained_lr_factor"}  # nothing without a file
    assert set(OTHER_VALUES) == known | {f"model.{option}" for option in recipe.model.options}


@pytest.mark.parametrize("key_path", OTHER_VALUES)
def test_changing_a_key_changes_the_recipe_and_its_key(key_path: str):
    recipe = Recipe()
    changed = recipe.with_overrides({key_path: OTHER_VALUES[key_path]})
    section, _, key = key_path.partition(".")
    assert changed.to_dict()[section][key] == OTHER_VALUES[key_path]
    assert changed != recipe
    assert changed.key != recipe.key
    if key != "name":
        assert changed.with_overrides({key_path: recipe.to_dict()[section].get(key)}) == recipe


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("data", {"validaton": 0.1}, "'data.validaton': did you mean 'validation'?"),
        ("model", {"batchnorm": True}, "'batchnorm': did you mean 'batch_norm'?"),
        ("training", {"learning_rate": 0.1}, "'training.learning_rate': did you mean 'optimizer.lr'?"),
        ("optimizer", {"momentun": 0.9}, "'optimizer.momentun': did you mean 'momentum'?"),
        ("optimizer", {"name": "adam", "beta": [0.9, 0.99]}, "'optimizer.beta': did you mean 'betas'?"),
        ("schedule", {"stepsize": 5}, "'schedule.stepsize': did you mean 'step_size'?"),
        ("schedule", {"name": "one_cycle", "pct_strat": 0.2}, "'schedule.pct_strat': did you mean 'pct_start'?"),
        ("training", {"epoch": 5}, "'training.epoch': did you mean 'epochs'?"),
        ("metrics", {"trian": "running"}, "'metrics.trian': did you mean 'train'?"),
        (
            "sampling",
            {"name": "weighted", "class_weights": [1.0, 2.0], "replacement": True},
            "a recipe has no key 'sampling.replacement': known: class_weights, name",
        ),
        ("optimizer", {"name": "adam", "beta": [0.9, 0.99], "momentun": 0.9}, "known: betas, lr, name, weight_decay"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(section: str, values: dict[str, Any], message: str):
    assert error_message({section: values}).endswith(message)


def test_a_key_of_another_optimizer_is_refused_with_those_of_this_one():
    message = error_message({"optimizer": {"name": "adam", "nesterov": True}})
    assert message == "a recipe has no key 'optimizer.nesterov': known: betas, lr, name, weight_decay"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epochs": "10"}}, "training.epochs = '10'"),
        ({"training": {"epochs": 1.5}}, "training.epochs = 1.5"),
        ({"training": {"epochs": 2.0}}, "training.epochs = 2.0"),
        ({"training": {"epochs": True}}, "training.epochs = True"),
        ({"training": {"epochs": 0}}, "training.epochs = 0"),
        ({"training": {"epochs": 100_001}}, "training.epochs = 100001"),
        ({"training": {"batch_size": -1}}, "training.batch_size = -1"),
        ({"training": {"seed": -1}}, "training.seed = -1"),
        ({"training": {"precision": "fp16"}}, "training.precision = 'fp16'"),
        ({"training": {"precision": 16}}, "training.precision = 16"),
        ({"training": {"ema": 1.0}}, "training.ema = 1.0"),
        ({"training": {"clip_norm": 0.0}}, "training.clip_norm = 0.0"),
        ({"optimizer": {"lr": True}}, "optimizer.lr = True"),
        ({"optimizer": {"lr": "0.1"}}, "optimizer.lr = '0.1'"),
        ({"optimizer": {"lr": -0.1}}, "optimizer.lr = -0.1"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr = 0"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr = nan"),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr = inf"),
        ({"optimizer": {"momentum": 1.0}}, "optimizer.momentum = 1.0"),
        ({"optimizer": {"nesterov": 1}}, "optimizer.nesterov = 1"),
        ({"optimizer": {"name": "adam", "betas": [0.9, 1.0]}}, "optimizer.betas.1 = 1.0"),
        ({"optimizer": {"name": "adamw", "betas": 0.9}}, "optimizer.betas = 0.9"),
        ({"schedule": {"gamma": 1.5}}, "schedule.gamma = 1.5"),
        ({"schedule": {"step_size": 0.5}}, "schedule.step_size = 0.5"),
        ({"schedule": {"warmup": -1}}, "schedule.warmup = -1"),
        ({"model": {"batch_norm": "yes"}}, "model.batch_norm = 'yes'"),
        ({"model": {"batch_norm": 1}}, "model.batch_norm = 1"),
        ({"model": {"channels": 16}}, "model.channels = 16"),
        ({"model": {"channels": [16, "32"]}}, "model.channels.1 = '32'"),
        ({"model": {"channels": [16, 0]}}, "model.channels.1 = 0"),
        ({"model": {"name": 3}}, "model.name = 3"),
        ({"data": {"augment": "flip"}}, "data.augment = 'flip'"),
        ({"data": {"augment": [4]}}, "data.augment.0 = 4"),
        ({"data": {"validation": 1}}, "data.validation = 1"),
        ({"data": {"validation": -0.1}}, "data.validation = -0.1"),
        ({"data": {"limit": 0}}, "data.limit = 0"),
        ({"data": {"limit": "all"}}, "data.limit = 'all'"),
        ({"data": {"image_size": 513}}, "data.image_size = 513"),
        ({"data": {"image_size": 7}}, "data.image_size = 7"),
        ({"data": {"name": "digits", "augment": None}}, "data.augment = None"),
        ({"metrics": {"train": "both"}}, "metrics.train = 'both'"),
        ({"training": 5}, "training = 5"),
        ({"optimizer": "sgd"}, "optimizer = 'sgd'"),
        ({"model": "simple_convnet"}, "model = 'simple_convnet'"),
        ({"data": "digits"}, "data = 'digits'"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_by_its_key(values: dict[str, Any], message: str):
    assert error_message(values).startswith(f"{message}: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {"name": "sdg"}}, "unknown optimizer 'sdg': did you mean 'sgd'?"),
        ({"optimizer": {"name": 3}}, "unknown optimizer '3': known: adam, adamw, muon, sgd"),
        ({"schedule": {"name": "cosin"}}, "unknown schedule 'cosin': did you mean 'cosine'?"),
        (
            {"data": {"augment": ["alternating_flip", "flip", "alternating_flip"]}},
            "data.augment has alternating_flip 2 times",
        ),
        ({"schedule": {"name": 3}}, "unknown schedule '3': known: constant, cosine, linear, one_cycle, step"),
        ({"model": {"name": "simple_convent"}}, "unknown network 'simple_convent': did you mean 'simple_convnet'?"),
        ({"data": {"augment": ["flip", "corp:4"]}}, "unknown augmentation 'corp': did you mean 'crop'?"),
        ({"data": {"name": "cifar01"}}, "there is no dataset 'cifar01': did you mean 'cifar10'?"),
        ({"data": {"name": "cifar01", "augment": []}}, "there is no dataset 'cifar01': did you mean 'cifar10'?"),
        ({"data": {"name": 3}}, "there is no dataset '3'"),
        ({"optimiser": {"lr": 0.1}}, "a recipe has no key 'optimiser': did you mean 'optimizer'?"),
        ({"training": {"a\nb": 1}}, "a recipe has no key 'training.a\\nb'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_name(values: dict[str, Any], message: str):
    assert error_message(values).startswith(message)


def test_a_date_in_a_recipe_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "dated.toml").write_text("[training]\nseed = 2026-11-24\n")
    with pytest.raises(
        LabError, match=r"dated\.toml: training\.seed = datetime\.date\(2026, 11, 24\): give a whole number$"
    ) as caught:
        Recipe.read(tmp_path / "dated.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[data]\nname = digits\n", 2), ("[training]\nepochs = 3\nepochs = 4\n", 3), ("an image of a cat", 1)],
)
def test_a_file_that_is_not_toml_is_refused_by_its_line(tmp_path: Path, text: str, line: int):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=f"is not TOML: .*line {line}") as caught:
        Recipe.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe[\x00d\x00")
    with pytest.raises(LabError, match=r"recipe\.toml is not TOML") as caught:
        Recipe.read(tmp_path / "recipe.toml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_by_their_path(tmp_path: Path):
    for path, message in ((tmp_path / "nowhere.toml", "cannot read the recipe {}"), (tmp_path, "{} is not a file")):
        with pytest.raises(LabError, match=f"^{message.format(path)}"):
            Recipe.read(path)


def test_augment_left_out_is_the_default_of_the_dataset_and_an_empty_list_is_none():
    assert Recipe.from_dict({"data": {"name": "cifar10"}}).data.augment == ("crop:4", "flip")
    assert Recipe.from_dict({"data": {"name": "folder:pets"}}).data.augment == ("crop:4", "flip")
    assert Recipe.from_dict({"data": {"name": "digits"}}).data.augment == ()
    assert Recipe.from_dict({}).data.augment == ()
    assert Recipe.from_dict({"data": {"name": "cifar10", "augment": []}}).data.augment == ()
    assert Recipe.from_dict({"data": {"augment": ["flip"]}}).data.augment == ("flip",)


def test_default_values_are_written_to_the_file_too():
    text = Recipe.from_dict({"data": {"name": "cifar10"}}).to_toml()
    values = tomllib.loads(text)
    assert values["data"]["augment"] == ["crop:4", "flip"]
    assert set(values["model"]) == {"name", "channels", "batch_norm", "residual"}
    assert values["optimizer"]["lr"] == 0.01


def test_a_recipe_is_immutable():
    recipe = Recipe()
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.epochs = 3
    recipe.with_overrides({"training.epochs": 3})
    assert recipe == Recipe()


def test_overrides_change_their_key_and_no_other():
    recipe = Recipe.from_dict({"optimizer": {"momentum": 0.5}, "training": {"seed": 3}})
    changed = recipe.with_overrides({"optimizer.lr": 0.5, "model.channels": [4, 8]})
    assert (changed.optimizer.lr, changed.optimizer.momentum) == (0.5, 0.5)
    assert changed.model.options == recipe.model.options | {"channels": (4, 8)}
    assert (changed.training, changed.data, changed.schedule) == (recipe.training, recipe.data, recipe.schedule)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_new_name_resets_its_section_to_defaults_whatever_the_order(is_reversed: bool):
    recipe = Recipe.from_dict({"optimizer": {"lr": 0.5, "momentum": 0.1}, "training": {"epochs": 3}})
    overrides = {"optimizer.weight_decay": 0.25, "optimizer.name": "adamw"}
    changed = recipe.with_overrides(dict(reversed(overrides.items())) if is_reversed else overrides)
    expected = Recipe.from_dict({"optimizer": {"name": "adamw", "weight_decay": 0.25}, "training": {"epochs": 3}})
    assert changed == expected


def test_a_new_dataset_sets_its_default_augmentation():
    assert Recipe.from_dict({"data": {"augment": ["rotate"]}}).with_overrides(
        {"data.name": "cifar10"}
    ).data.augment == (
        "crop:4",
        "flip",
    )


def test_the_same_name_keeps_the_values_of_its_section():
    recipe = Recipe.from_dict({"optimizer": {"name": "adam", "lr": 0.5}, "model": {"batch_norm": False}})
    assert recipe.with_overrides({"optimizer.name": "adam", "model.name": "simple_convnet"}) == recipe


def test_several_sets_of_overrides_apply_in_order_and_are_parsed_once(monkeypatch: pytest.MonkeyPatch):
    recipe, parsed = Recipe(), []
    original = Recipe.from_file_values
    monkeypatch.setattr(
        Recipe, "from_file_values", lambda values, **settings: parsed.append(values) or original(values, **settings)
    )
    changed = recipe.with_overrides(
        {"optimizer.name": "adam", "optimizer.lr": 0.5}, {"optimizer.lr": 0.25}, {"training.seed": 3}
    )
    assert len(parsed) == 1
    assert (changed.optimizer.name, changed.optimizer.lr, changed.training.seed) == ("adam", 0.25, 3)
    one_by_one = recipe.with_overrides({"optimizer.name": "adam", "optimizer.lr": 0.5}).with_overrides(
        {"optimizer.lr": 0.25}
    )
    assert changed == one_by_one.with_overrides({"training.seed": 3})


@pytest.mark.parametrize(
    ("key_path", "message"),
    [
        ("epochs", "'epochs' is not a recipe key: write section.key, such as optimizer.lr"),
        ("training.", "'training.' is not a recipe key"),
        ("trainings.epochs", "a recipe has no section 'trainings': did you mean 'training'?"),
        (".epochs", "a recipe has no section ''"),
        ("training.epoch", "a recipe has no key 'training.epoch': did you mean 'epochs'?"),
        (
            "loss.label_smoothing",
            "a recipe has no key 'loss.label_smoothing': did you mean 'training.label_smoothing'?",
        ),
        ("optimizer.epochs", "a recipe has no key 'optimizer.epochs': did you mean 'training.epochs'?"),
        ("training.name", "a recipe has no key 'training.name': known: batch_size, "),
        ("model.name.first", "the network 'simple_convnet' has no option 'name.first'"),
    ],
)
def test_an_override_of_an_unknown_key_is_refused(key_path: str, message: str):
    with pytest.raises(LabError) as caught:
        Recipe().with_overrides({key_path: 3})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.lr=0.1", ("optimizer.lr", 0.1)),
        ("optimizer.lr = 1e-3", ("optimizer.lr", 1e-3)),
        ("training.epochs=5", ("training.epochs", 5)),
        ("model.batch_norm=false", ("model.batch_norm", False)),
        ("model.channels=[8, 16]", ("model.channels", [8, 16])),
        ('data.augment=["crop:4", "flip"]', ("data.augment", ["crop:4", "flip"])),
        ('schedule.name="cosine"', ("schedule.name", "cosine")),
        ("schedule.name=cosine", ("schedule.name", "cosine")),
        ("schedule.name= cosine ", ("schedule.name", "cosine")),
        ("data.name=folder:my pets/a=b", ("data.name", "folder:my pets/a=b")),
        ("training.epochs=", ("training.epochs", "")),
    ],
)
def test_a_typed_override_is_read_as_toml_or_as_a_plain_string(text: str, expected: tuple[str, Any]):
    key_path, value = parse_override(text)
    assert (key_path, value) == expected
    assert type(value) is type(expected[1])


@pytest.mark.parametrize("text", ["optimizer.lr", "=3", " = 3", ""])
def test_an_override_without_a_key_or_a_value_is_refused(text: str):
    with pytest.raises(LabError, match=r"is not an override: write section\.key=value$"):
        parse_override(text)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(OTHER_VALUES)))
def test_an_override_typed_as_toml_is_the_value_itself(key_path: str):
    value = OTHER_VALUES[key_path]
    typed = tomli_w.dumps({"x": value}).removeprefix("x = ").strip().replace("\n", " ")
    assert Recipe().with_overrides(dict([parse_override(f"{key_path}={typed}")])) == Recipe().with_overrides(
        {key_path: value}
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [(".001", 0.001), ("-.5", -0.5), ("+.5", 0.5), ("1e-3", 0.001), (".git", ".git"), ("a.b", "a.b"), ("7", 7)],
)
def test_a_value_of_the_command_line_is_read_as_people_write_it(text: str, value: object):
    assert parse_override(f"optimizer.lr={text}") == ("optimizer.lr", value)


@pytest.mark.parametrize("text", [400 * "[" + 400 * "]", "9" * 5000, "[" * 9000, "9" * 100_000])
def test_a_value_that_is_too_deep_or_too_long_is_one_short_line(text: str):
    try:
        value = parse_override(f"optimizer.lr={text}")[1]
    except LabError as error:
        message = str(error)
    else:
        with pytest.raises(LabError) as caught:
            Recipe().with_overrides({"optimizer.lr": value})
        message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + 2000 * b"[" + 2000 * b"]", "nested too deep"),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"x" * 1_000_001, "has more than 1,000,000 bytes"),
        (b"\xff\xfe", "is not TOML"),
    ],
)
def test_a_recipe_file_that_is_too_large_or_too_deep_is_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(LabError, match=message):
        Recipe.read(path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "\0", "a" * 300, "/nowhere/recipe.toml"])
def test_what_is_no_file_is_no_recipe(path: str):
    with pytest.raises(LabError):
        Recipe.read(path)


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf[training]\nepochs = 3\n")
    assert Recipe.read(path).training.epochs == 3
