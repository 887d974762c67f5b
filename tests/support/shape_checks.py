"""Tests whose arguments are of other types than the signatures state, which the shape checks would refuse first."""

import os

import pytest

without_shape_checks = pytest.mark.skipif(os.environ.get("CONVOLAB_SHAPE_CHECKS") == "1", reason="other types")
