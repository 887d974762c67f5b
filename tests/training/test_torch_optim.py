"""Optimizers that are not convolab's: torch's own by name, and a person's, which resume bit for bit or are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import own_code_folder
from torch import nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training.optim import Optimizer
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.torch_optim import OPTIMIZERS, OtherOptimizer, TorchOptimizerState

USABLE = sorted(set(OPTIMIZERS.classes) - set(OPTIMIZERS.refused) - {"Muon"})  # Muon takes matrices only
LION = '''
import torch


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                first, second = group["betas"]
                p.sub_((first * mean + (1 - first) * p.grad).sign(), alpha=group["lr"])
                mean.lerp_(p.grad, 1 - second)


class Counting(Lion):
    """Keeps its number of steps where no state_dict has it."""

    count = 0

    def step(self):
        self.count += 1
        for group in self.param_groups:
            group["lr"] /= self.count
        super().step()


class WithList(Lion):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p].setdefault("seen", []).append(p.grad.clone())
                if len(self.state[p]["seen"]) > 3:
                    p.data.add_(self.state[p]["seen"][0])
        super().step()


class Failing(Lion):
    def step(self):
        raise RuntimeError("no\\nstep")


def without_rate(params, momentum: float = 0.9):
    return torch.optim.SGD(params, momentum=momentum)


def half(params, lr: float = 0.1):
    """Two groups, the second with a tenth of the rate."""
    params = list(params)
    return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": lr / 10}], lr=lr)


def nothing(params, lr: float = 0.1):
    return None
'''


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((4, 3, 2, 2), (5, 4), (5,))]


def set_gradients(params: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in params:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("name", USABLE)
def test_a_class_of_torch_optim_steps_as_torch_does(name: str) -> None:
    ours, theirs = parameters(), parameters()
    optimizer = OtherOptimizer(name=name)
    state = optimizer.build(ours)
    oracle = getattr(torch.optim, name)(theirs, lr=optimizer.lr)
    for step in range(4):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        rate = optimizer.lr / (1 + step)
        state.step(rate)
        oracle.param_groups[0]["lr"] = rate
        oracle.step()
    assert all(map(torch.equal, ours, theirs))
    assert not torch.equal(ours[0], parameters()[0])


@pytest.mark.parametrize("name", USABLE)
def test_a_class_of_torch_optim_resumes_exactly(name: str) -> None:
    assert OtherOptimizer(name=name).build(parameters()).resumes_exactly()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NAdam", "Adafactor", "ASGD"])
def test_a_stopped_run_with_a_class_of_torch_optim_resumes_bit_for_bit(
    name: str, digits: DatasetSplits, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({"optimizer.name": name, "optimizer.lr": 0.01})
    whole = Run.start(recipe, digits, tmp_path / "whole")
    stopped = Run.start(recipe, digits, tmp_path / "stopped", callbacks=stop_after(8))
    assert stopped.status == "stopped"
    Run(stopped.folder).resume(digits)
    for file in ("best.safetensors", "last.safetensors"):
        assert (stopped.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def test_a_torch_optimizer_is_named_with_or_without_its_module() -> None:
    long, short = (Recipe.from_dict({"optimizer": {"name": name}}) for name in ("torch.optim.RMSprop", "RMSprop"))
    assert long == short
    assert long.to_dict()["optimizer"]["alpha"] == 0.99  # every option is in the recipe, whatever torch's next default
    assert (
        Recipe().with_overrides({"optimizer.name": "RMSprop"}, {"optimizer.alpha": 0.9}).optimizer.options["alpha"]
        == 0.9
    )


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"name": "RMSporp"}, "unknown optimizer 'RMSporp': did you mean 'RMSprop'?"),
        ({"name": "x"}, "unknown optimizer 'x': known: adam, adamw, muon, sgd, a class of torch.optim, or your own as file.py:Name"),
        ({"name": "RMSprop", "alhpa": 1.0}, "the optimizer 'RMSprop' has no option 'alhpa': did you mean 'alpha'?"),
        ({"name": "RMSprop", "lr": -1.0}, "optimizer.lr = -1.0: give a number above 0"),
        ({"name": "LBFGS"}, "the optimizer 'LBFGS' cannot be used: it evaluates the loss several times in a step"),
        ({"name": "nothing.py:Lion"}, "no file nothing.py to find Lion in: give its path relative to the "
         "current directory"),
    ],
)  # fmt: skip
def test_a_wrong_optimizer_is_one_line(optimizer: dict[str, object], message: str) -> None:
    with pytest.raises(LabError) as caught:
        Recipe.from_dict({"optimizer": optimizer})
    assert str(caught.value) == message


def test_what_torch_refuses_is_one_line() -> None:
    with pytest.raises(LabError, match=r"^the optimizer 'RMSprop' cannot be made with .*: [^\n]+$"):
        OtherOptimizer(name="RMSprop", alpha="x").build(parameters())
    with pytest.raises(
        LabError, match=r"^the optimizer 'Muon' cannot be made with .*only supports 2D parameters[^\n]*$"
    ):
        OtherOptimizer(name="Muon").build(parameters())


# ---- a person's own


@pytest.fixture
def lion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Recipes with an optimizer of lion.py, which is in the current folder."""
    return own_code_folder(tmp_path, monkeypatch, "lion.py", LION)


@pytest.mark.slow
def test_an_own_optimizer_is_kept_with_the_run_and_resumed_from_its_copy(
    lion: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = lion({"optimizer.name": "lion.py:Lion", "optimizer.lr": 0.003})
    assert recipe.to_dict()["optimizer"]["betas"] == [0.9, 0.99]
    whole = Run.start(recipe, digits, "whole")
    assert (whole.folder / "code/@optimizer/lion.py").read_text() == LION
    Run.start(recipe, digits, "stopped", callbacks=stop_after(8))
    Path("lion.py").write_text(LION.replace(".sign()", ""))
    resumed = Run("stopped").resume(digits)
    assert (resumed.folder / "last.safetensors").read_bytes() == (whole.folder / "last.safetensors").read_bytes()
    assert resumed.code_note == "lion.py was edited since stopped began: the run's own copy in code/ is used"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Counting", "WithList"])
def test_an_optimizer_that_could_not_be_resumed_exactly_is_refused_before_anything_is_written(
    name: str, lion: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = lion({"optimizer.name": f"lion.py:{name}"})
    with pytest.raises(
        LabError, match=f"^the optimizer 'lion.py:{name}' keeps something outside its state .*exact = false$"
    ):
        Run.start(recipe, digits, "run")
    assert not Path("run").exists()
    assert Run.start(recipe.with_overrides({"training.exact": False}), digits, "run").status == "finished"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Failing", "the optimizer 'lion.py:Failing' failed in its step: no (lion.py, line 43)"),
        ("nothing", "the optimizer 'lion.py:nothing' gives NoneType: it must give a torch.optim.Optimizer"),
    ],
)
def test_what_an_own_optimizer_does_wrong_is_one_line(
    name: str, message: str, lion: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    with pytest.raises(LabError) as caught:
        Run.start(lion({"optimizer.name": f"lion.py:{name}"}), digits, "run")
    assert str(caught.value) == message
    assert not Path("run").exists()


def test_an_own_optimizer_without_a_learning_rate_is_refused(lion: Callable[..., Recipe]) -> None:
    with pytest.raises(LabError, match="must take a learning rate: give it an option 'lr'"):
        lion({"optimizer.name": "lion.py:without_rate"})


def test_a_strangers_state_changes_no_more_of_an_optimizer_than_its_numbers() -> None:
    state = OtherOptimizer(name="NAdam").build(parameters())
    extra = {"groups": [{"params": "x", "new": 1, "eps": 0.5, "betas": [0.1, 0.2]}], "states": {"0": 3}, "devices": 7}
    state.load_state_dict({}, extra)
    group = state.optimizer.param_groups[0]
    assert (len(group["params"]), group["eps"], group["betas"], "new" in group) == (3, 0.5, (0.9, 0.999), False)
    with pytest.raises(ValueError, match="is not one of 3 parameters"):
        state.load_state_dict({"9.exp_avg": torch.zeros(1)})


def test_groups_keep_the_ratio_of_their_rates() -> None:
    def make(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.01}], lr=0.1)

    params = parameters()
    before = [p.detach().clone() for p in params]
    state = TorchOptimizerState(make, params)
    set_gradients(params, 0)
    state.step(0.05)
    torch.testing.assert_close(params[0], before[0] - 0.05 * params[0].grad)
    torch.testing.assert_close(params[1], before[1] - 0.005 * params[1].grad)


def test_a_strangers_recipe_with_an_own_optimizer_is_refused_until_it_is_trusted(
    lion: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = Recipe().to_toml().replace('name = "sgd"', 'name = "lion.py:Lion"').replace("nesterov = false\n", "")
    Path("recipe.toml").write_text(text.replace("momentum = 0.9\n", "").replace("weight_decay = 0.0005\n", ""))
    with pytest.raises(LabError, match=r"lion\.py is code that you have not trusted yet"):
        Recipe.read("recipe.toml")


def test_ours_are_no_others(lion: Callable[..., Recipe]) -> None:
    optimizers: list[Optimizer] = [
        Recipe.from_dict({"optimizer": {"name": n}}).optimizer for n in ("sgd", "adam", "adamw")
    ]
    assert not any(isinstance(optimizer, OtherOptimizer) for optimizer in optimizers)
