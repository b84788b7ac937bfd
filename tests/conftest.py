"""Fixtures every test may use: a small real laboratory, built once, and a home that is not the user's."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadlines: a test never fails for the time it takes, on a busy machine or while a kernel is compiled.
settings.register_profile("sftknow", deadline=None)
settings.load_profile("sftknow")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def lab_cache(request):
    """A cache of built laboratories that lasts over test sessions, keyed by their recipe."""
    return Path(request.config.cache.mkdir("sftknow"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(lab_cache):
    """Keep the tests away from the user's cache, in one where the tiny laboratory is built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFTKNOW_CACHE", str(lab_cache))
        yield


@pytest.fixture(scope="session")
def tiny_lab(own_cache):
    """The smallest laboratory: a pretrained model with its facts and relations; never write into its folder."""
    from sftknow.lab.build import build_lab

    return build_lab(size="tiny")
