"""What a person reads whose training diverged: advice that does not lead back to where they were."""

import pytest


@pytest.mark.slow
def test_a_run_that_diverged_is_neither_resumed_nor_trained_again_in_its_folder_and_each_command_says_what_to_do(
    run_cli,
) -> None:
    train = ["train", "simple_convnet", "--set", "model.batch_norm=false", "--epochs", 1, "--out", "hot"]
    assert "the loss became" in run_cli(*train, "--lr", "1e30").err
    again = run_cli(*train)
    assert (again.code, "holds a run already: choose another folder" in again.err) == (2, True), again.err
    resumed = run_cli("resume", "hot")
    assert (resumed.code, "start a new run (convolab train --recipe hot/recipe.toml --lr 1e+29)" in resumed.err) == (
        2,
        True,
    ), resumed.err
    tested = run_cli("test", "hot")
    assert "hot has no weights: none of its epochs was finished" in tested.err
