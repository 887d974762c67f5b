"""The experiment on the two assumptions: what it does to pictures, and that the networks answer as theory says."""

import pytest
import torch

from convolab.core.errors import LabError
from convolab.data.catalog import Pictures, load
from convolab.data.dataset import ImageSet
from convolab.theory import answer_priors, priors
from convolab.theory.priors import AS_IS, BLOCKS, CONNECTED, CONVNET, MOVED, PERMUTED, Experiment, Findings, Trial

SMALL = Experiment(train=300, epochs=12, copies=1, seeds=3)


@pytest.fixture(scope="module")
def digits() -> Pictures:
    return load("digits")


@pytest.fixture(scope="module")
def findings(digits) -> Findings:
    return priors.run(SMALL, digits)


def coloured(count: int = 40) -> Pictures:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 12, 12), dtype=torch.uint8, generator=draw)
    pictures = ImageSet(images, torch.arange(count) % 4, ("a", "b", "c", "d"), "coloured")
    return Pictures(pictures, pictures)


def test_the_convnet_leads_and_loses_its_lead_under_the_permutation(findings) -> None:
    assert findings.lead(AS_IS).low > 0.4
    assert findings.lost(PERMUTED).low > 0.4
    assert abs(findings.lead(PERMUTED).mean) < 0.1


def test_shifted_blocks_cost_the_convnet_a_part_of_its_lead(findings) -> None:
    assert findings.lost(BLOCKS).low > 0.2
    assert findings.accuracy(BLOCKS, CONVNET).mean > findings.accuracy(PERMUTED, CONVNET).mean


def test_the_fully_connected_network_cannot_tell(findings) -> None:
    for arrangement in (PERMUTED, BLOCKS):
        change = findings.change(arrangement, CONNECTED)
        assert change.low < 0 < change.high
        assert abs(change.mean) < 0.03


def test_moved_the_convnet_still_reads_and_the_other_guesses(findings) -> None:
    assert findings.accuracy(MOVED, CONVNET).mean > 0.7
    assert findings.accuracy(MOVED, CONNECTED).mean < 0.2


def test_both_networks_are_of_one_size_and_every_trial_was_made(findings) -> None:
    assert len(findings.trials) == SMALL.trials == 3 * 4 * 2
    sizes = findings.parameters
    assert abs(sizes[CONVNET] - sizes[CONNECTED]) < 0.01 * sizes[CONVNET]


def test_a_permuted_twin_is_the_same_function_before_and_after_training(digits) -> None:
    same = priors.sameness(SMALL, digits)
    assert same.before < 1e-14
    assert same.after < 1e-4 * same.scale
    assert same.scale > 0.1


def test_a_twin_with_the_wrong_permutation_is_another_function(digits, monkeypatch) -> None:
    monkeypatch.setattr(priors, "with_permuted_inputs", lambda network, order: network)
    assert priors.sameness(SMALL, digits).before > 0.01
    assert not answer_priors.of_sameness(SMALL, digits)[1]


def test_of_colour_pictures_the_twins_weights_move_in_every_channel_alike() -> None:
    assert priors.sameness(Experiment(side=None, train=40, batch_size=20, block=3), coloured()).before < 1e-14


@pytest.mark.parametrize("where", ["anywhere", "train", "test"])
def test_digits_are_placed_whole_and_nowhere_else(digits, where) -> None:
    few = digits.test.part(torch.arange(100))
    few = ImageSet(*few.whole.take(few.rows), few.classes, "few")
    placed = priors.placed(few, 16, 3, 0, "test", where)
    assert placed.images.shape == (300, 1, 16, 16)
    assert torch.equal(placed.labels, few.labels.repeat(3))
    assert torch.equal(placed.images.sum((1, 2, 3)), few.images.sum((1, 2, 3)).repeat(3))
    lit = placed.images.amax((0, 1, 2)).nonzero().flatten()
    assert {"anywhere": lit.max() - lit.min() > 12, "train": lit.max() <= 9, "test": lit.min() >= 6}[where]


def test_places_are_all_equally_likely() -> None:
    dot = ImageSet(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0]), ("dot",), "dot")
    placed = priors.placed(dot, 16, 8100, 0, "test")
    corners = placed.images[:, 0].flatten(1).argmax(1)
    counts = torch.stack([(corners == y * 16 + x).sum() for y in range(9) for x in range(9)])
    assert counts.sum() == 8100
    assert ((counts - 100) ** 2 / 100).sum() < 130  # chi square with 80 degrees of freedom: above 130 once in 3,000


def test_a_rearrangement_keeps_every_pixel_and_is_the_same_for_all_pictures_and_channels() -> None:
    pictures = coloured().train
    for order in (priors.permutation(12, 12, 0), priors.block_shifts(12, 12, 5, 0)):
        assert torch.equal(order.sort().values, torch.arange(144))
        images = priors.rearranged(pictures, order).images
        assert torch.equal(images.flatten(2)[7, 2], pictures.images.flatten(2)[7, 2][order])


def test_blocks_are_turned_within_themselves_and_differently() -> None:
    order = priors.block_shifts(16, 16, 4, 0).view(16, 16)
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
    plan = Experiment(side=None, train=20, block=4)
    made = dict(priors.arranged(plan, coloured(), 0))
    assert list(made) == [AS_IS, PERMUTED, BLOCKS]
    assert made[AS_IS][1].images.shape == (40, 3, 12, 12)
    assert len(made[AS_IS][0]) == 20


def test_a_seed_decides_everything(digits) -> None:
    plan = Experiment(train=64, epochs=1, copies=1, seeds=2)
    state = torch.random.get_rng_state()
    first, again = (priors.run(plan, digits) for _ in range(2))
    assert first.trials == again.trials
    later = priors.run(plan.model_copy(update={"seed": 1}), digits)
    assert [t for t in first.trials if t.seed == 1] == [t for t in later.trials if t.seed == 1]
    assert torch.equal(state, torch.random.get_rng_state())


def test_every_trial_is_told_of_as_it_ends(digits) -> None:
    heard = []
    plan = Experiment(train=64, epochs=1, copies=1, seeds=2)
    assert tuple(heard) == () != priors.run(plan, digits, heard.append).trials == tuple(heard)


def made_up(convnet: list[float], connected: list[float], permuted: list[float]) -> Findings:
    accuracies = {
        (AS_IS, CONVNET): convnet,
        (AS_IS, CONNECTED): connected,
        (PERMUTED, CONVNET): permuted,
        (PERMUTED, CONNECTED): connected,
    }
    accuracies |= {(BLOCKS, CONVNET): permuted, (BLOCKS, CONNECTED): connected}
    trials = [
        Trial(a, n, seed, 10, 1.0, value) for (a, n), values in accuracies.items() for seed, value in enumerate(values)
    ]
    return Findings(SMALL, "made up", 10, tuple(trials))


def test_a_convnet_that_does_not_lose_its_lead_fails_the_checks() -> None:
    kept = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.9, 0.9, 0.91])
    assert answer_priors.of_lead(kept)[1]
    assert not answer_priors.of_permutation(kept)[1]
    lost = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.51])
    assert answer_priors.of_permutation(lost)[1]
    assert answer_priors.of_blocks(lost)[1]


def test_a_lead_within_chance_and_a_network_that_can_tell_fail_the_checks() -> None:
    even = made_up([0.5, 0.6, 0.4], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert not answer_priors.of_lead(even)[1]
    told = made_up([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.5])
    trials = [
        t if (t.arrangement, t.network) != (PERMUTED, CONNECTED) else Trial(PERMUTED, CONNECTED, t.seed, 10, 1.0, 0.4)
        for t in told.trials
    ]
    assert answer_priors.of_indifference(told)[1]
    assert not answer_priors.of_indifference(Findings(SMALL, "made up", 10, tuple(trials)))[1]


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
        priors.run(SMALL.model_copy(update=change), digits)
