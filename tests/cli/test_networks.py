"""The network that a command works on: a pretrained one or that of a run."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from convolab.cli.networks import load_network
from convolab.core.errors import LabError
from convolab.models import pretrained as pretrained_module


@pytest.mark.slow
def test_a_bundled_network_is_loaded_without_a_request_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module, "is_reachable", lambda url: pytest.fail(f"requested {url}"))
    net = load_network("efficientnet_lite0")
    assert net.validate_inputs
    assert not net.training


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
        load_network("timm/resnet18")
    assert settings == [True]
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("name", ["efficientnet_lite9", "torchvision/resnet18", "no_such_run"])
def test_a_name_that_is_neither_a_pretrained_network_nor_a_run_is_refused(name: str) -> None:
    with pytest.raises(LabError, match=f"'{name}' is neither a pretrained network nor the folder of a run"):
        load_network(name)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError):
        load_network(str(tmp_path))
