"""Does a search find as good a configuration as Optuna and as Ray Tune do with the same work?

    python benchmarks/search.py [--repetitions 10] [--configurations 27] [--epochs 9]

searches the bundled digits for simple_convnet's rate, weight decay, momentum, batch size and channels, in turn by `convolab sweep
--search` (random and, with Optuna, TPE sampling), by Optuna's TPESampler with its SuccessiveHalvingPruner and with its HyperbandPruner, and
by Ray Tune's ASHAScheduler with its random sampling. All call the same training code, an epoch at a time, with the same initial weights
and the same split in a repetition. Equal work: all peers get as many epochs as our search takes, each of the same number of images;
seconds are not compared. Of each contender's configurations the one of the best validation accuracy is tested, with the weights of its best
epoch. Needs optuna and ray[tune]; what is not installed is left out.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import processor, verdict

from convolab.core.stats import mean_interval
from convolab.data.catalog import load
from convolab.data.memmap import read_memmap
from convolab.studies.executor import Job, run_job
from convolab.studies.search import FIRST_SEED, Choice, Range, Search
from convolab.studies.search_runner import execute_search
from convolab.training.evaluation import evaluate
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import build_trainer

SPACE = {
    "optimizer.lr": Range(0.0003, 3.0),
    "optimizer.weight_decay": Range(1e-6, 0.1),
    "optimizer.momentum": Range(0.0, 0.98),
    "training.batch_size": Choice((16, 64, 256)),
    "model.channels": Choice(([4, 8], [8, 16], [16, 32])),
}
REDUCTION = 3
Outcome = tuple[float, float, float]  # validation accuracy, the loss's negative, test accuracy of the best epoch so far


def base_recipe(epochs: int) -> Recipe:
    data = {"name": "digits", "validation": 0.2}
    return Recipe.from_dict({"data": data, "training": {"epochs": epochs}, "schedule": {"name": "cosine"}})


def epochs_of(overrides: dict[str, Any], epochs: int, seed: int) -> Iterator[Outcome]:
    """The training of one configuration; each epoch is computed when it is asked for."""
    torch.set_num_threads(1)
    splits = load("digits")
    trainer = build_trainer(
        base_recipe(epochs).with_overrides(overrides, {"training.seed": FIRST_SEED + seed}), splits, "cpu"
    )
    best: Outcome = (-1.0, 0.0, 0.0)
    try:
        for epoch in trainer.iter_epochs():
            if (epoch.validation_accuracy, -epoch.validation_loss) > best[:2]:  # as ours breaks ties
                test = evaluate(trainer.eval_net, splits.test).loss_and_accuracy[1]
                best = (epoch.validation_accuracy, -epoch.validation_loss, test)
            yield best
    except Exception as error:  # it diverged: what it had stays, and it gets no more
        print(f"{overrides}: {error}", file=sys.stderr)


# ---------------------------------------------------------------- the contenders: test accuracy, epochs, configurations


class InProcess:
    """An executor that trains in this process and counts epochs."""

    def __init__(self) -> None:
        self.epochs = 0

    def run(self, jobs: Sequence[Job], dataset_folder: Path, on_event: Any, should_stop: Callable[[], bool]) -> None:
        def count(event: Any) -> None:
            self.epochs += event.kind == "epoch"
            on_event(event)

        for job in jobs:
            run_job(job, partial(read_memmap, dataset_folder), count, should_stop)


def ours(sampler: str, given: argparse.Namespace, budget: int, seed: int) -> tuple[float, int, int]:
    search = Search("search", base_recipe(given.epochs), SPACE, given.configurations, sampler, seed)
    executor = InProcess()
    with tempfile.TemporaryDirectory() as folder:
        result = execute_search(search, folder, executor=executor)
        assert result.winner is not None
        accuracy = Run(result.winner.result.folder).test().accuracy
    return accuracy, executor.epochs, len(result.tried)


def optuna_alone(pruner: str, given: argparse.Namespace, budget: int, seed: int) -> tuple[float, int, int]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    used, outcomes = 0, [(-1.0, 0.0, 0.0)]

    def objective(trial: Any) -> float:
        nonlocal used
        overrides = {
            "optimizer.lr": trial.suggest_float("lr", SPACE["optimizer.lr"].low, SPACE["optimizer.lr"].high, log=True),
            "optimizer.weight_decay": trial.suggest_float("weight_decay", 1e-6, 0.1, log=True),
            "optimizer.momentum": trial.suggest_float("momentum", 0.0, 0.98),
            "training.batch_size": trial.suggest_categorical("batch_size", SPACE["training.batch_size"].values),
            "model.channels": SPACE["model.channels"].values[trial.suggest_categorical("channels", range(3))],
        }
        best = outcomes[0]
        outcomes.append(best)
        for epoch, best in enumerate(epochs_of(overrides, given.epochs, seed), 1):
            used += 1
            outcomes[-1] = best
            trial.report(best[0], epoch)
            if used >= budget:
                trial.study.stop()
                return best[0]
            if trial.should_prune():
                raise optuna.TrialPruned
        return max(best[0], 0.0)

    pruners = {
        "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(1, given.epochs, REDUCTION),
    }
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruners[pruner](), study_name="x"
    )
    study.optimize(objective, n_trials=10_000)
    return max(outcomes)[2], used, len(outcomes) - 1


def ray_trial(config: dict[str, Any], epochs: int, seed: int) -> None:
    from ray import tune

    overrides = {**config, "model.channels": SPACE["model.channels"].values[config["model.channels"]]}
    for accuracy, loss, test in epochs_of(overrides, epochs, seed):
        tune.report({"accuracy": accuracy, "loss": loss, "test": test})


def ray_asha(given: argparse.Namespace, budget: int, seed: int) -> tuple[float, int, int]:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    class Budget(tune.Stopper):
        """Counts epochs, and stops all when they are used up."""

        def __init__(self) -> None:
            self.used, self.outcomes = 0, {}

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            if self.used < budget:
                self.used += 1
                self.outcomes[trial_id] = (result["accuracy"], result["loss"], result["test"])
            return self.used >= budget

        def stop_all(self) -> bool:
            return self.used >= budget

    if not ray.is_initialized():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    stopper = Budget()
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(partial(ray_trial, epochs=given.epochs, seed=seed), {"cpu": 1}),
            param_space={
                "optimizer.lr": tune.loguniform(SPACE["optimizer.lr"].low, SPACE["optimizer.lr"].high),
                "optimizer.weight_decay": tune.loguniform(1e-6, 0.1),
                "optimizer.momentum": tune.uniform(0.0, 0.98),
                "training.batch_size": tune.choice(SPACE["training.batch_size"].values),
                "model.channels": tune.choice(range(3)),
            },
            tune_config=tune.TuneConfig(
                metric="accuracy", mode="max", num_samples=10 * given.configurations, max_concurrent_trials=1, reuse_actors=True,
                scheduler=ASHAScheduler(max_t=given.epochs, grace_period=1, reduction_factor=REDUCTION),
                search_alg=BasicVariantGenerator(random_state=seed),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, stop=stopper),
        ).fit()  # fmt: skip
    return max(stopper.outcomes.values())[2], stopper.used, len(stopper.outcomes)


# ---------------------------------------------------------------- the table


def contenders() -> dict[str, Callable[[argparse.Namespace, int, int], tuple[float, int, int]]]:
    found: dict[str, Any] = {"convolab, random": partial(ours, "random")}
    if find_spec("optuna"):
        found |= {
            "convolab, tpe": partial(ours, "tpe"),
            "Optuna, TPE + SuccessiveHalvingPruner": partial(optuna_alone, "halving"),
            "Optuna, TPE + HyperbandPruner": partial(optuna_alone, "hyperband"),
        }
    if find_spec("ray") and find_spec("pyarrow"):
        found["Ray Tune, random + ASHA"] = ray_asha
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--configurations", type=int, default=27)
    parser.add_argument("--epochs", type=int, default=9)
    given = parser.parse_args()
    outcomes: dict[str, list[tuple[float, int, int]]] = {}
    for seed in range(given.repetitions):
        budget = 0
        for name, contend in contenders().items():
            started = time.perf_counter()
            outcomes.setdefault(name, []).append(contend(given, budget, seed))
            budget = budget or outcomes[name][-1][1]  # what our first one took
            print(f"{seed} {name}: {outcomes[name][-1]}, {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(f"{processor()}, one thread; {given.repetitions} repetitions\n")
    first = np.array([accuracy for accuracy, _, _ in outcomes["convolab, random"]])
    print(
        "| contender | configurations | epochs | test accuracy, % | convolab, random is better by, points |\n|---|---|---|---|---|"
    )
    for name, of_contender in outcomes.items():
        accuracies, epochs, configurations = map(np.array, zip(*of_contender, strict=True))
        mean, ahead = mean_interval(list(100 * accuracies)), mean_interval(list(100 * (first - accuracies)))
        is_peer = not name.startswith("convolab")
        met = f" ({verdict(ahead.mean >= 0)})" if is_peer else ""
        difference = (
            "" if name == "convolab, random" else f"{ahead.mean:.2f} ({ahead.low:.2f} to {ahead.high:.2f}){met}"
        )
        print(
            f"| {name} | {configurations.mean():.1f} | {epochs.mean():.1f} | "
            f"{mean.mean:.2f} ({mean.low:.2f} to {mean.high:.2f}) | {difference} |"
        )


if __name__ == "__main__":
    main()
