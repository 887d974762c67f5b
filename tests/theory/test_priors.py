"""The experiment on the two assumptions: what it does to pictures, and that the networks answer as theory says."""

import pytest
import torch

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.theory import answer_priors, priors
from convolab.theory.priors import (
    AS_IS,
    BLOCKS,
    CONVNET,
    FULLY_CONNECTED,
    MOVED,
    PERMUTED,
    PriorsConfig,
    PriorsResult,
    PriorsTrial,
)

SMALL = PriorsConfig(train_size=300, epochs=12, test_placements=1, num_seeds=3)


@pytest.fixture(scope="module")
def digits() -> DatasetSplits:
    return load("digits")


@pytest.fixture(scope="module")
def findings(digits) -> PriorsResult:
    return priors.run_priors_experiment(SMALL, digits)


def coloured(count: int = 40) -> DatasetSplits:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 12, 12), dtype=torch.uint8, generator=draw)
    pictures = ImageDataset(images, torch.arange(count) % 4, ("a", "b", "c", "d"), "coloured")
    return DatasetSplits(pictures, pictures)


def test_the_convnet_leads_and_loses_its_lead_under_the_permutation(findings) -> None:
    assert findings.mean_convnet_lead(AS_IS).low > 0.4
    assert findings.mean_lead_loss(PERMUTED).low > 0.4
    assert abs(findings.mean_convnet_lead(PERMUTED).mean) < 0.1


def test_shifted_blocks_cost_the_convnet_a_part_of_its_lead(findings) -> None:
    assert findings.mean_lead_loss(BLOCKS).low > 0.2
    assert findings.accuracy(BLOCKS, CONVNET).mean > findings.accuracy(PERMUTED, CONVNET).mean


def test_the_fully_connected_network_cannot_tell(findings) -> None:
    for arrangement in (PERMUTED, BLOCKS):
        change = findings.change(arrangement, FULLY_CONNECTED)
        assert change.low < 0 < change.high
        assert abs(change.mean) < 0.03


def test_moved_the_convnet_still_reads_and_the_other_guesses(findings) -> None:
    assert findings.accuracy(MOVED, CONVNET).mean > 0.7
    assert findings.accuracy(MOVED, FULLY_CONNECTED).mean < 0.2


def test_both_networks_are_of_one_size_and_every_trial_was_made(findings) -> None:
    assert len(findings.trials) == SMALL.num_trials == 3 * 4 * 2
    sizes = findings.parameters
    assert abs(sizes[CONVNET] - sizes[FULLY_CONNECTED]) < 0.01 * sizes[CONVNET]


def test_a_permuted_twin_is_the_same_function_before_and_after_training(digits) -> None:
    same = priors.measure_permutation_invariance(SMALL, digits)
    assert same.untrained_difference < 1e-14
    assert same.trained_difference < 1e-4 * same.max_abs_logit
    assert same.max_abs_logit > 0.1


def test_a_twin_with_the_wrong_permutation_is_another_function(digits, monkeypatch) -> None:
    monkeypatch.setattr(priors, "with_permuted_inputs", lambda network, order: network)
    assert priors.measure_permutation_invariance(SMALL, digits).untrained_difference > 0.01
    assert not answer_priors.check_permutation_invariance(SMALL, digits)[1]


def test_of_colour_pictures_the_twins_weights_move_in_every_channel_alike() -> None:
    assert (
        priors.measure_permutation_invariance(
            PriorsConfig(canvas_size=None, train_size=40, batch_size=20, block_size=3), coloured()
        ).untrained_difference
        < 1e-14
    )


@pytest.mark.parametrize("where", ["anywhere", "train", "test"])
def test_digits_are_placed_whole_and_nowhere_else(digits, where) -> None:
    few = digits.test.subset(torch.arange(100))
    few = ImageDataset(*few.dataset.gather(few.indices), few.classes, "few")
    placed = priors.place_on_canvas(few, 16, 3, 0, "test", where)
    assert placed.images.shape == (300, 1, 16, 16)
    assert torch.equal(placed.labels, few.labels.repeat(3))
    assert torch.equal(placed.images.sum((1, 2, 3)), few.images.sum((1, 2, 3)).repeat(3))
    lit = placed.images.amax((0, 1, 2)).nonzero().flatten()
    assert {"anywhere": lit.max() - lit.min() > 12, "train": lit.max() <= 9, "test": lit.min() >= 6}[where]


def test_places_are_all_equally_likely() -> None:
    dot = ImageDataset(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0]), ("dot",), "dot")
    placed = priors.place_on_canvas(dot, 16, 8100, 0, "test")
    corners = placed.images[:, 0].flatten(1).argmax(1)
    counts = torch.stack([(corners == y * 16 + x).sum() for y in range(9) for x in range(9)])
    assert counts.sum() == 8100
    assert ((counts - 100) ** 2 / 100).sum() < 130  # chi square with 80 degrees of freedom: above 130 once in 3,000


def test_a_rearrangement_keeps_every_pixel_and_is_the_same_for_all_pictures_and_channels() -> None:
    pictures = coloured().train
    for order in (priors.pixel_permutation(12, 12, 0), priors.block_shift_permutation(12, 12, 5, 0)):
        assert torch.equal(order.sort().values, torch.arange(144))
        images = priors.reorder_pixels(pictures, order).images
        assert torch.equal(images.flatten(2)[7, 2], pictures.images.flatten(2)[7, 2][order])


def test_blocks_are_turned_within_themselves_and_differently() -> None:
    order = priors.block_shift_permutation(16, 16, 4, 0).view(16, 16)
    turned = set()
    for top in range(0, 16, 4):
        for left in range(0, 16, 4):
            block = order[top : top + 4, left : left + 4]
            y, x = block // 16 - top, block % 16 - left
            assert sorted((4 * y + x).flatten().tolist()) == list(range(16))
            assert torch.equal((y - y[:, :1]) % 4, torch.zeros(4, 4, dtype=torch.int64))  # rows stay rows
            assert torch.equal((x - x[:1]) % 4, torch.zeros(4, 4, dtype=torch.int64))
            turned.add((int(y[0, 0]), int(x[0, 0])))
    assert len(turned) > 5


def test_of_sets_of_larger_pictures_nothing_is_placed_or_moved() -> None:
    plan = PriorsConfig(canvas_size=None, train_size=20, block_size=4)
    made = dict(priors.iterate_arrangements(plan, coloured(), 0))
    assert list(made) == [AS_IS, PERMUTED, BLOCKS]
    assert made[AS_IS][1].images.shape == (40, 3, 12, 12)
    assert len(made[AS_IS][0]) == 20


def test_a_seed_decides_everything(digits) -> None:
    plan = PriorsConfig(train_size=64, epochs=1, test_placements=1, num_seeds=2)
    state = torch.random.get_rng_state()
    first, again = (priors.run_priors_experiment(plan, digits) for _ in range(2))
    assert first.trials == again.trials
    later = priors.run_priors_experiment(plan.model_copy(update={"seed": 1}), digits)
    assert [t for t in first.trials if t.seed == 1] == [t for t in later.trials if t.seed == 1]
    assert torch.equal(state, torch.random.get_rng_state())


def test_every_trial_is_told_of_as_it_ends(digits) -> None:
    heard = []
    plan = PriorsConfig(train_size=64, epochs=1, test_placements=1, num_seeds=2)
    assert tuple(heard) == () != priors.run_priors_experiment(plan, digits, heard.append).trials == tuple(heard)


def made_up(convnet: list[float], connected: list[float], permuted: list[float]) -> PriorsResult:
    accuracies = {
        (AS_IS, CONVNET): convnet,
        (AS_IS, FULLY_CONNECTED): connected,
        (PERMUTED, CONVNET): permuted,
        (PERMUTED, FULLY_CONNECTED): connected,
    }
    accuracies |= {(BLOCKS, CONVNET): permuted, (BLOCKS, FULLY_CONNECTED): connected}
    trials = [
        PriorsTrial(a, n, seed, 10, 1.0, value)
        for (a, n), values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return PriorsResult(SMALL, "made up", 10, tuple(trials))


def test_a_convnet_that_does_not_lose_its_lead_fails_the_checks() -> None:
    kept = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.9, 0.9, 0.91])
    assert answer_priors.check_convnet_lead(kept)[1]
    assert not answer_priors.check_permutation_removes_lead(kept)[1]
    lost = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.51])
    assert answer_priors.check_permutation_removes_lead(lost)[1]
    assert answer_priors.check_block_shifts_reduce_lead(lost)[1]


def test_a_lead_within_chance_and_a_network_that_can_tell_fail_the_checks() -> None:
    even = made_up([0.5, 0.6, 0.4], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert not answer_priors.check_convnet_lead(even)[1]
    told = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.5])
    trials = [
        t
        if (t.arrangement, t.network) != (PERMUTED, FULLY_CONNECTED)
        else PriorsTrial(PERMUTED, FULLY_CONNECTED, t.seed, 10, 1.0, 0.4)
        for t in told.trials
    ]
    assert answer_priors.check_fully_connected_unchanged(told)[1]
    assert not answer_priors.check_fully_connected_unchanged(PriorsResult(SMALL, "made up", 10, tuple(trials)))[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": 5000}, "trains on 5000 pictures, and digits has 1438"),
        ({"seeds": 1}, "one seed has no interval"),
        ({"side": 9}, "pictures of 8x8 cannot be moved on a canvas of 9"),
        ({"block": 1}, "blocks of 1 pixels: give 2 to 16"),
        ({"batch_size": 500}, "a batch of 500 is larger than the 300 training pictures"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_before_work_starts(digits, change, said) -> None:
    with pytest.raises(LabError, match=said):
        priors.run_priors_experiment(SMALL.model_copy(update=change), digits)
