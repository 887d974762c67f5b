import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convolab.core.rng import derive_seed, isolated_rng, make_generator, seed_default_generator
from convolab.data.dataset import ImageDataset
from convolab.models.registry import build
from convolab.training.recipe import Training
from convolab.training.trainer import Trainer

KEYS = st.lists(st.integers() | st.text(), max_size=4).map(tuple)


@pytest.mark.slow
@given(KEYS, KEYS)
def test_seeds_are_equal_exactly_for_equal_keys(one: tuple, other: tuple) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert 0 <= derive_seed(*one) < 2**63


def test_the_types_the_borders_and_the_order_of_the_parts_of_a_key_all_matter() -> None:
    keys = [
        (1, 2),
        ("1", "2"),
        ("12",),
        (12,),
        ("1, 2",),
        (2, 1),
        ("a", "bc"),
        ("ab", "c"),
        ("",),
        (),
        (0,),
        (-1,),
        (1,),
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


@pytest.mark.slow
def test_the_keys_of_many_runs_all_have_different_seeds() -> None:
    keys = list(product(range(10), ("order", "augment", "layers"), range(20), range(50)))
    assert len({derive_seed(*key) for key in keys}) == len(keys)


@pytest.mark.slow
def test_a_seed_is_the_same_in_another_process_with_another_hash_seed() -> None:
    script = (
        "from convolab.core.rng import derive_seed;"
        "print(derive_seed(), derive_seed(0, 'order', 1), derive_seed('a', -7))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    output = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert [int(number) for number in output.split()] == [
        derive_seed(),
        derive_seed(0, "order", 1),
        derive_seed("a", -7),
    ]


def test_streams_of_neighboring_keys_are_uncorrelated() -> None:
    streams = torch.stack([torch.randn(20_000, generator=make_generator(0, "order", epoch)) for epoch in range(8)])
    correlations = torch.corrcoef(streams) - torch.eye(8)
    assert correlations.abs().max() < 5 / 20_000**0.5


def test_each_generator_is_new_and_the_global_one_is_not_changed() -> None:
    before = torch.get_rng_state()
    first = torch.rand(5, generator=make_generator(3, "x"))
    assert torch.equal(first, torch.rand(5, generator=make_generator(3, "x")))
    assert torch.equal(before, torch.get_rng_state())


def test_the_state_of_the_global_generator_is_restored_after_use() -> None:
    before = torch.get_rng_state()
    with isolated_rng():
        seed_default_generator(torch.device("cpu"), 5, "layers")
        inside = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(inside, torch.rand(3, generator=make_generator(5, "layers")))


def test_the_state_of_the_global_generator_is_restored_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), isolated_rng():
        torch.rand(3)[3 // 0]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_networks_that_two_threads_build_at_once_have_the_weights_of_their_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat(
            [p.detach().flatten() for p in build("simple_convnet", (3, 16, 16), 10, seed=seed).parameters()]
        )

    expected = [weights(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(weights, [number % 4 for number in range(120)]))
    assert all(torch.equal(got, expected[number % 4]) for number, got in enumerate(built))


@pytest.mark.slow
def test_trainings_in_two_threads_draw_what_each_draws_alone() -> None:
    pixels = torch.randint(256, (96, 1, 8, 8), dtype=torch.uint8, generator=make_generator("pixels"))
    images = ImageDataset(pixels, torch.arange(96) % 3, ("a", "b", "c"), "noise")

    def losses(seed: int) -> list[float]:
        net = build("simple_convnet", (1, 8, 8), 3, dropout=0.5, seed=seed)
        trainer = Trainer(net, images, images, training=Training(epochs=3, batch_size=8, seed=seed))
        return [epoch.train_loss for epoch in trainer.iter_epochs()]

    expected = [losses(seed) for seed in range(2)]
    host_state = torch.get_rng_state()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(losses, [0, 1, 0, 1])) == 2 * expected
    assert torch.equal(torch.get_rng_state(), host_state)
