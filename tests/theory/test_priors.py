"""The experiment on the two assumptions: its networks behave as in theory, and its seed decides everything."""

import copy

import pytest
import torch

from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.models.registry import build
from convolab.studies.executor import JobEvent
from convolab.theory import answer_priors, priors
from convolab.theory.arrangements import AS_IS, BLOCKS, MOVED, PERMUTED, PriorsConfig
from convolab.theory.priors import CONVNET, FULLY_CONNECTED, PriorsResult

SMALL = PriorsConfig(train_size=300, epochs=12, test_placements=1, num_seeds=3)
TINY = PriorsConfig(train_size=64, epochs=1, test_placements=1, num_seeds=2)


@pytest.fixture(scope="module")
def result(digits) -> PriorsResult:
    return priors.run_priors_experiment(SMALL, digits)


@pytest.mark.long
def test_the_convnet_is_better_and_loses_its_lead_under_the_permutation(result) -> None:
    assert result.mean_convnet_lead(AS_IS).low > 0.4
    assert result.mean_lead_loss(PERMUTED).low > 0.4
    assert abs(result.mean_convnet_lead(PERMUTED).mean) < 0.1


@pytest.mark.long
def test_shifted_blocks_cost_the_convnet_part_of_its_lead(result) -> None:
    assert result.mean_lead_loss(BLOCKS).low > 0.2
    assert result.mean_test_accuracy(BLOCKS, CONVNET).mean > result.mean_test_accuracy(PERMUTED, CONVNET).mean


@pytest.mark.long
def test_the_fully_connected_network_is_unaffected_by_reordered_pixels(result) -> None:
    for arrangement in (PERMUTED, BLOCKS):
        change = result.mean_accuracy_change(arrangement, FULLY_CONNECTED)
        assert change.low < 0 < change.high
        assert abs(change.mean) < 0.03


@pytest.mark.long
def test_on_moved_digits_the_convnet_keeps_its_accuracy_and_the_other_is_at_chance_level(result) -> None:
    assert result.mean_test_accuracy(MOVED, CONVNET).mean > 0.7
    assert result.mean_test_accuracy(MOVED, FULLY_CONNECTED).mean < 0.2


@pytest.mark.long
def test_both_networks_have_the_same_size_and_there_are_all_trials(result) -> None:
    assert len(result.trials) == SMALL.num_trials == 3 * 4 * 2
    sizes = result.parameter_counts
    assert abs(sizes[CONVNET] - sizes[FULLY_CONNECTED]) < 0.01 * sizes[CONVNET]


@pytest.mark.parametrize("count", [1, 959, 961, 1921, 2500])
def test_logits_in_chunks_are_those_of_all_images_at_once_bit_for_bit(count: int) -> None:
    images = torch.randint(256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(count)).to(torch.uint8)
    dataset = ImageDataset(images, torch.arange(count) % 10, tuple("abcdefghij"), "noise")
    network = build(FULLY_CONNECTED, (1, 8, 8), 10, seed=0, hidden=20)
    sizes: list[int] = []
    hooked = copy.deepcopy(network)
    hooked.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    logits = priors.float64_logits(hooked, dataset)
    with torch.inference_mode():
        assert torch.equal(logits, network.double().eval()(images.double() / 255))
    assert max(sizes) < 2 * priors.IMAGES_PER_CHUNK


def test_an_input_permuted_copy_is_the_same_function_before_and_after_training(digits) -> None:
    invariance = priors.measure_permutation_invariance(SMALL, digits)
    assert invariance.untrained_difference < 1e-14
    assert invariance.trained_difference < 1e-4 * invariance.max_abs_logit
    assert invariance.max_abs_logit > 0.1


@pytest.mark.slow
def test_a_copy_with_the_wrong_permutation_is_another_function(digits, monkeypatch) -> None:
    monkeypatch.setattr(priors, "permute_input_weights", lambda network, order: network)
    assert priors.measure_permutation_invariance(SMALL, digits).untrained_difference > 0.01
    assert not answer_priors.check_permutation_invariance(SMALL, digits)[1]


def test_the_input_weights_of_color_images_are_permuted_alike_in_every_channel(color_images) -> None:
    config = PriorsConfig(canvas_size=None, train_size=40, batch_size=20, block_size=3)
    assert priors.measure_permutation_invariance(config, color_images).untrained_difference < 1e-14


@pytest.mark.long
def test_the_seed_decides_everything(digits) -> None:
    state = torch.random.get_rng_state()
    first, repeated = (priors.run_priors_experiment(TINY, digits) for _ in range(2))
    assert first.trials == repeated.trials
    later = priors.run_priors_experiment(TINY.model_copy(update={"seed": 1}), digits)
    assert [t for t in first.trials if t.seed == 1] == [t for t in later.trials if t.seed == 1]
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_every_trial_is_reported_when_it_ends(digits) -> None:
    reported_trials = []
    assert (
        tuple(reported_trials)
        == ()
        != priors.run_priors_experiment(TINY, digits, reported_trials.append).trials
        == tuple(reported_trials)
    )


class FailingExecutor:
    """Reports that every job failed."""

    def run(self, jobs, dataset_folder, on_event, stop) -> None:
        for job in jobs:
            on_event(JobEvent(job.recipe.key, "failed", reason="no memory"))


def test_a_failed_trial_ends_the_experiment_in_one_line(digits) -> None:
    with pytest.raises(LabError, match="a trial on images as they are, seed 0, failed: no memory"):
        priors.run_priors_experiment(TINY, digits, executor=FailingExecutor())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train_size": 5000}, "trains on 5000 images but digits has 1438: choose a larger dataset"),
        ({"num_seeds": 1}, "one seed gives no confidence interval"),
        ({"canvas_size": 9}, "8x8 images cannot be moved on a 9-pixel canvas"),
        ({"block_size": 1}, "block_size is 1: give 2 to 16"),
        ({"batch_size": 500}, "batch_size is 500: give at most the 300 images to train on"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_work_starts(digits, overrides, message) -> None:
    with pytest.raises(LabError, match=message):
        priors.run_priors_experiment(SMALL.model_copy(update=overrides), digits)
