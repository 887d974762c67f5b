"""The keys in which a recipe is not the default one."""

from convolab.training.recipe import Recipe
from convolab.training.recipe_changes import changed_keys


def test_the_default_recipe_of_any_network_and_dataset_has_no_changed_keys() -> None:
    for network in ("simple_convnet", "resnet_small", "whitened_convnet", "timm/resnet18"):
        for data in ("digits", "cifar10", "folder:pets", "torchvision:MNIST"):
            assert changed_keys(Recipe().with_overrides({"model.name": network, "data.name": data})) == {}


def test_a_part_of_another_name_is_compared_with_its_own_defaults() -> None:
    overrides = {
        "optimizer.name": "adamw",
        "schedule.name": "one_cycle",
        "schedule.pct_start": 0.5,
        "loss.name": "focal",
        "sampling.name": "weighted",
        "sampling.class_weights": [1.0] * 10,
        "model.residual": True,
        "data.augment": ["flip"],
    }
    assert changed_keys(Recipe().with_overrides(overrides)) == overrides


def test_the_options_of_a_librarys_class_all_count_as_changed() -> None:
    recipe = Recipe().with_overrides({"optimizer.name": "RMSprop", "optimizer.alpha": 0.9})
    assert {"optimizer.name": "RMSprop", "optimizer.alpha": 0.9}.items() <= changed_keys(recipe).items()
