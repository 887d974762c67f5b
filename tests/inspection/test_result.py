"""What a finding says about itself, whatever tool it is of."""

import torch

from convolab.inspection.result import Finding


def test_a_finding_says_on_how_many_threads_it_was_computed_also_later_on_others() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        finding = Finding("fool", ("a sentence",), {"l2": 1.0}, {})
        torch.set_num_threads(2)
        assert finding.to_dict()["threads"] == 1
        assert Finding("fool", ("a sentence",), {}, {}).to_dict()["threads"] == 2
    finally:
        torch.set_num_threads(before)
