"""The command `convolab correlate`."""

import json

import pytest

from convolab.theory.sliding import slide_correlation


def test_it_prints_z_both_jacobians_and_what_a_shift_does(run_cli) -> None:
    printed = run_cli("correlate", "--x=1,2,0,-1", "--y=0,1/2,1,2")
    assert printed.code == 0
    assert printed.out.splitlines()[:5] == ["k\tz", "0\t-1", "1\t2.5", "2\t4.5", "3\t1"]
    assert "x shifted by 1: z only shifts" in printed.out
    with_zeros = run_cli("correlate", "--x=1,2,0,-1", "--y=0,1/2,1,2", "--padding", "zeros", "--stride", "2", "--json")
    expected = slide_correlation([1, 2, 0, -1], [0, 0.5, 1, 2], padding="zeros", stride=2)
    assert json.loads(with_zeros.out) == expected.to_dict()


def test_with_a_stride_each_row_is_at_the_k_of_the_formula_in_the_help(run_cli) -> None:
    assert "z[k] = sum_i x[i] y[i + k] for every stride-th k" in " ".join(run_cli("correlate", "--help").out.split())
    x, y = [1, 2, 0, -1, 3], [0, 0.5, 1, 2, 7]
    printed = run_cli("correlate", "--x=1,2,0,-1,3", "--y=0,1/2,1,2,7", "--stride", "2").out.splitlines()
    rows = dict(line.split("\t") for line in printed[1:4])
    assert rows == {str(k): f"{sum(x[i] * y[(i + k) % 5] for i in range(5)):.6g}" for k in (0, 2, 4)}


def test_single_samples_are_correlated_without_a_shift(run_cli) -> None:
    printed = run_cli("correlate", "--x=3", "--y=2")
    assert printed.code == 0, printed.err
    assert "x shifted by 0: z only shifts" in printed.out
    assert slide_correlation([3], [2]).to_dict()["z"] == [6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--x=1,a", "--y=1,2"], "'a' in x is not a number"),
        (["--x=1,2", "--y=1,2,3"], "x has 2 samples and y has 3"),
        (["--x=1,2", "--y=1,2", "--padding", "mirror"], "padding 'mirror': give circular or zeros"),
        (["--x=1,2", "--y=1,2", "--stride", "3"], "stride 3: give 1 to 2"),
        (["--x=1,2", "--y=1,2", "--shift", "2"], "a shift by 2: give 0 to 1"),
    ],
)
def test_what_cannot_be_correlated_is_one_line(run_cli, words: list[str], message: str) -> None:
    refused = run_cli("correlate", *words)
    assert refused.code == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1
