"""What every test runs under, and the fixtures of more than one module; nothing here needs a network."""

from __future__ import annotations

import gc
import os
from collections import defaultdict

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["COLUMNS"] = "110"  # of the terminal that helps are laid out for

import pytest

CASES = 4  # of a test with more of them, which run by default


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """A test of many cases runs a few of them by default, from the first to the last; the others are slow."""
    cases = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and not item.get_closest_marker("slow"):
            cases[item.parent, item.originalname].append(item)
    for found in cases.values():
        if len(found) > CASES:
            kept = {round(number * (len(found) - 1) / (CASES - 1)) for number in range(CASES)}
            for number, item in enumerate(found):
                if number not in kept:
                    item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Every training run starts with a garbage collection, which need not walk through all that was imported so far."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _unfreeze_at_the_end():
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Arguments of a run of hf-logitmix glue; see `helpers.glue`."""
    from helpers.glue import small_run

    return small_run(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Pictures of three classes, 24 and 12 of 16 pixels."""
    from helpers.image_runs import write_pictures

    return write_pictures(tmp_path_factory.mktemp("data") / "three", 3, 8, 4, 16)


@pytest.fixture
def untrained(monkeypatch):
    """No step is made in this test of the command line for images."""
    from hf_logitmix.vision.train import ImageRunTrainer

    def step(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(ImageRunTrainer, "training_step", step)
