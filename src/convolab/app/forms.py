"""What the controls of the tabs Train and Compare mean: a recipe, a command, a call of Python, a study."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolab.app.same_as import SameAs, command_line, option_words, python_call, python_literal
from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.types import Json

if TYPE_CHECKING:
    from convolab.studies.study import Study
    from convolab.training.recipe import Recipe

KEYWORDS = {  # controls that the command line and Python have words for: the recipe's key of each
    "data": "data.name",
    "epochs": "training.epochs",
    "lr": "optimizer.lr",
    "batch_size": "training.batch_size",
    "seed": "training.seed",
}
MORE_KEYWORDS = {
    "optimizer": "optimizer.name",
    "schedule": "schedule.name",
    "augment": "data.augment",
}  # of Python, and of `convolab train` alone: the commands on the page give them with --set
OPTION = "option."  # how the name of a network's option begins
# What can be checked only with the weights themselves.
START_WEIGHTS = ("model.weights", "model.weights_sha256", "model.pretrained_lr_factor")
MAX_CONTROLS, MAX_CONTROL = 200, 10_000


def is_count(text: str) -> bool:
    """Whether a text is a count in the digits that a command and a line of Python take too.

    >>> is_count("23"), is_count("٢٣"), is_count("-1"), is_count("")
    (True, False, False, False)
    """
    return text.isascii() and text.isdecimal() and len(text) < 7


@dataclass(frozen=True)
class TrainForm:
    """The controls of a training: text as a person typed it; what is empty is left to the recipe's default.

    Args:
        network: the network's name.
        keywords: values of `KEYWORDS`.
        others: values of all other recipe keys.
        playback: whether the filters and predictions of each epoch are kept.
    """

    network: str
    keywords: Mapping[str, Json]
    others: Mapping[str, Json]
    playback: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "TrainForm":
        """The form with the controls' values. Raises LabError, naming the control, for what cannot be read."""
        from convolab.training.recipe import parse_override, parse_value, transform_list

        require(len(values) <= MAX_CONTROLS, f"a training has {MAX_CONTROLS} controls at most")
        given: dict[str, str] = {}
        for name, value in values.items():
            require(
                isinstance(value, str) and len(value) <= MAX_CONTROL, f"{name} must be a text, and not so long a one"
            )
            if value.strip():
                given[name] = value.strip()
        keywords = {name: parse_value(given[name]) for name in KEYWORDS if name in given}
        others: dict[str, Json] = {}
        for name, key in MORE_KEYWORDS.items():
            if name in given:
                others[key] = transform_list(given[name]) if name == "augment" else parse_value(given[name])
        for name, text in given.items():
            if name.startswith(OPTION):
                others[f"model.{name.removeprefix(OPTION)}"] = parse_value(text)
        for line in given.get("more", "").splitlines():
            if line.strip():
                key, value = parse_override(line.strip())
                require(key not in others, f"{key} is given twice: leave one out")
                others[key] = value
        return cls(given.get("net", "simple_convnet"), keywords, others, "playback" in given)

    @property
    def overrides(self) -> dict[str, Json]:
        """All keys that differ from the default recipe."""
        return {"model.name": self.network} | {KEYWORDS[k]: v for k, v in self.keywords.items()} | dict(self.others)

    @property
    def fetched(self) -> dict[str, Json]:
        """What is given of a library's own weights: they may have to be downloaded, and only the training does that."""
        from convolab.models.libraries import is_library_network

        given = {key: self.others[key] for key in START_WEIGHTS if key in self.others}
        is_library = is_library_network(str(self.overrides["model.name"]))
        return given if is_library and given.get("model.weights") == "pretrained" else {}

    def recipe(self) -> "Recipe":
        """The recipe, without what is `fetched`.

        Raises LabError for a wrong key or value, and for somebody's code that is not trusted.
        """
        from convolab.training.recipe import Recipe

        fetched = self.fetched
        recipe = Recipe().parse_overrides({key: value for key, value in self.overrides.items() if key not in fetched})
        require_possible_options(recipe)
        return recipe

    def set_options(self) -> list[str]:
        """The other keys as `--set` takes them."""
        return [f"{key}={value if isinstance(value, str) else toml_text(value)}" for key, value in self.others.items()]

    @property
    def log(self) -> str | None:
        """The training's log."""
        return "playback" if self.playback else None

    def words(self, out: Path | None, data_dir: Path | None) -> list[str]:
        """The command that trains it."""
        options = {
            "data": self.keywords.get("data"),
            "epochs": self.keywords.get("epochs"),
            "lr": self.keywords.get("lr"),
            "batch-size": self.keywords.get("batch_size"),
            "seed": self.keywords.get("seed"),
            "set": self.set_options(),
            "log": self.log,
            "data-dir": data_dir,
            "out": out,
        }
        return option_words("train", self.network, options=options)

    def same_as(self, out: Path | None, data_dir: Path | None) -> SameAs:
        """The same as a command and as Python."""
        named = {name: self.others[key] for name, key in MORE_KEYWORDS.items() if key in self.others}
        rest = {key: value for key, value in self.others.items() if key not in MORE_KEYWORDS.values()}
        keywords = {
            **self.keywords,
            **named,
            "overrides": rest or None,
            "log": self.log,
            "data_dir": data_dir,
            "out": out,
        }
        call = python_call("convolab.train", self.network, keywords=keywords)
        return SameAs(command_line(self.words(out, data_dir)), f"import convolab\n\nrun = {call}")


@dataclass(frozen=True)
class SweepForm:
    """The controls of a study: a training, the keys that vary with their values, and the number of seeds."""

    base: TrainForm
    grid: Mapping[str, Sequence[Json]]
    seeds: int

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "SweepForm":
        """The form with the controls' values. Raises LabError for what cannot be read."""
        from convolab.studies.sweep import parse_sweep_values

        values = dict(values)
        grid, seeds = str(values.pop("grid", "")), str(values.pop("seeds", "") or "3")
        lines = [line.strip() for line in grid.splitlines() if line.strip()]
        require(lines, "a study varies something: write a key and its values, such as optimizer.lr=0.1,0.01")
        parsed = dict(parse_sweep_values(line) for line in lines)
        require(len(parsed) == len(lines), "a key is given twice: list all its values at once")
        require(is_count(seeds) and 1 <= int(seeds) <= 1000, f"{seeds[:20]} seeds: give a number from 1 to 1000")
        values.pop("seed", None)  # a study has seeds of its own
        form = cls(TrainForm.parse(values), parsed, int(seeds))
        for key in parsed:
            require(
                key not in form.base.overrides, f"{key} is varied, so it cannot have one value too: empty its control"
            )
            is_checked = key != "model.weights" and not (form.base.fetched and key in START_WEIGHTS)
            require(is_checked, f"{key} cannot vary here, where no weights are downloaded: use convolab sweep")
        return form

    def study(self) -> "Study":
        """The study. Raises LabError for a wrong key or value."""
        from convolab.studies.sweep import sweep_study

        base = self.base.recipe()
        for key, values in self.grid.items():
            for value in values:  # a study may name somebody's code: here it must be trusted already
                require_possible_options(base.parse_overrides({key: value}))
        return sweep_study(self.base.network, base, self.grid, range(self.seeds))

    def words(self, out: Path | None, data_dir: Path | None) -> list[str]:
        """The command that runs it."""
        keywords = self.base.keywords
        settings = self.base.set_options()
        settings += [f"optimizer.lr={toml_text(keywords['lr'])}"] if "lr" in keywords else []
        grid = [f"{key}={','.join(map(toml_text, values))}" for key, values in self.grid.items()]
        options = {
            "data": keywords.get("data"),
            "epochs": keywords.get("epochs"),
            "batch-size": keywords.get("batch_size"),
            "set": settings,
            "seeds": self.seeds,
            "data-dir": data_dir,
            "out": out,
        }
        return option_words("sweep", self.base.network, *grid, options=options)

    def same_as(self, out: Path | None, data_dir: Path | None) -> SameAs:
        """The same as a command and as Python."""
        study = self.study()
        values = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        recipe = changed_sections(self.base.recipe())
        for key, value in self.base.fetched.items():
            recipe["model"][key.removeprefix("model.")] = value
        values["recipe"] = recipe
        call = python_call("convolab.run_study", keywords={"out": out, "data_dir": data_dir})
        call = call.replace("(", "(study, ", 1).replace("(study, )", "(study)")
        lines = ",\n".join(f"        {python_literal(key)}: {python_literal(value)}" for key, value in values.items())
        python = (
            "import convolab\n\n"
            f'if __name__ == "__main__":  # because trials are processes of their own\n'
            f"    study = convolab.Study.from_dict({{\n{lines}\n    }})\n    result = {call}"
        )
        return SameAs(command_line(self.words(out, data_dir)), python)


def changed_sections(recipe: "Recipe") -> dict[str, dict[str, Json]]:
    """The sections of a recipe that are not as the default recipe has them."""
    from convolab.training.recipe import Recipe

    default = Recipe().to_dict()
    return {name: keys for name, keys in recipe.to_dict().items() if keys != default.get(name)}


def toml_text(value: object) -> str:
    """A value as `--set` reads it back.

    >>> toml_text(True), toml_text([8, 16]), toml_text("cosine"), toml_text(["flip"]), toml_text(1e-05)
    ('true', '[8, 16]', '"cosine"', '["flip"]', '1e-05')
    """
    import tomli_w

    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_text, value))}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").strip()


def require_offered(overrides: Iterable[Mapping[str, Json]], nets: Sequence[str], data: Sequence[str]) -> None:
    """Raise LabError for code, images or weights that are not the page's to open. Nothing of them is read to find out.

    Args:
        overrides: keys of recipes with their values.
        nets: networks of a person's own that `convolab app --net` named.
        data: images of a person's own that `convolab app --data` named.
    """
    from convolab.models.own_code import is_own_code
    from convolab.models.registry import NETWORKS
    from convolab.training.parts import part_names

    for given in overrides:
        for name in part_names(given):
            if isinstance(name, str) and is_own_code(name) and name not in (*nets, *NETWORKS):
                raise LabError(
                    f"'{escape_line(name, 80)}' is code that the page was not given: convolab app --net FILE:NAME offers a "
                    "network of your own; other parts of your own need the command line"
                )
        images, weights = given.get("data.name"), given.get("model.weights")
        if isinstance(images, str) and ":" in images and images not in data:
            raise LabError(
                f"the page reads no path that it was not given: start it with --data {escape_line(images, 80)}"
            )
        require(
            weights in (None, "pretrained"),
            "the page reads no file of weights: use the command line for model.weights",
        )


def require_possible_options(recipe: "Recipe") -> None:
    """Raise LabError if a library cannot build its network with the options: only building it shows that.

    With images of one's own, whose shape is not known yet, the training is the first to see it.
    """
    from convolab.data.catalog import DATASETS
    from convolab.models.libraries import is_library_network

    info = DATASETS.get(recipe.data.name)
    if info and recipe.model.options and is_library_network(recipe.model.name):
        refusal = why_not_built(recipe.model.name, info.shape, info.num_classes, repr(recipe.model.options))
        require(refusal is None, refusal or "")


@lru_cache(maxsize=100)
def why_not_built(name: str, shape: tuple[int, int, int], classes: int, options: str) -> str | None:
    """Why a network cannot be built, in a line, without its memory; None if it can. The page asks at every key."""
    import torch

    from convolab.models.registry import build_by_name

    try:
        with torch.device("meta"):
            build_by_name(name, shape, classes, ast.literal_eval(options))
    except LabError as error:
        return str(error)
    return None
