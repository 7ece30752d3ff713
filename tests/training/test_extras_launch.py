"""Two processes learn what one process learns on the same global batch, beside the model and from a teacher."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.launching import TORCHRUN, run_launched

METHODS = ["lamix", "sg_mcel", "gmcel", "distillation"]
LEARNED = {"lamix": 2, "sg_mcel": 2, "gmcel": 1, "distillation": 0}  # tensors, SG-MCEL's similarity among them

pytestmark = pytest.mark.slow


def launch(launcher: list[str], folder: Path, batch: int, accumulation: int) -> list[dict]:
    """What each process wrote, by rank."""
    run_launched(launcher, "extras", str(folder), str(batch), str(accumulation), *METHODS)
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (results,) = launch([sys.executable], tmp_path_factory.mktemp("alone"), 8, 1)
    return results


@pytest.fixture(scope="module", params=[(4, 1), (2, 2)], ids=["4x1", "2x2"])
def together(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, launch(TORCHRUN, folder, *request.param)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_equal_one(alone, together, method):
    one, (_, ranks) = alone[method], together
    assert one["processes"] == 1
    assert [results[method]["processes"] for results in ranks] == [2, 2]
    two = ranks[0][method]
    assert len(one["terms"]) == 4
    for ours, theirs in zip(two["terms"], one["terms"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    np.testing.assert_allclose(two["weights"], one["weights"], atol=2e-5)
    for moment in ("start", "extras"):
        assert two[moment].keys() == one[moment].keys()
        for name in one[moment]:
            np.testing.assert_allclose(two[moment][name], one[moment][name], atol=2e-5, err_msg=f"{moment} {name}")


@pytest.mark.parametrize("method", METHODS)
def test_processes_agree_bit_for_bit_and_what_is_learned_moved(together, method):
    folder, (first, second) = together
    first, second = first[method], second[method]
    for key in ("weights", "start", "extras"):
        assert first[key] == second[key]
    assert len(first["extras"]) == LEARNED[method]
    moved = [name for name, value in first["extras"].items() if value != first["start"][name]]
    assert sorted(moved) == sorted(name for name in first["extras"] if not name.endswith("similarity"))
    saved = folder / method / "checkpoint-4" / "hf_logitmix_extras.safetensors"
    assert saved.exists() is bool(LEARNED[method])
    if saved.exists():
        kept = load_file(saved)
        assert {name: value.tolist() for name, value in kept.items()} == first["extras"]


def test_the_class_similarity_is_found_once_and_by_the_first(alone, together):
    _, ranks = together
    for method in METHODS:
        once = int(method in ("sg_mcel", "gmcel"))
        assert alone[method]["analyses"] == once
        assert [results[method]["analyses"] for results in ranks] == [once, 0]
