"""Pairs that tests only read."""

import checkpoints
import pytest


@pytest.fixture(scope="session")
def bf16_pair(tmp_path_factory):
    """A small bfloat16 pair in one file each; never write into its folders."""
    return checkpoints.make_pair(tmp_path_factory.mktemp("bf16"))
