"""Model cards, as the Hub reads them."""

from __future__ import annotations

import math
import re

import yaml
from huggingface_hub import ModelCardData, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results


def checked_metadata(path):
    """The metadata of a card, which are what the Hub asks for, and which its library reads and writes unchanged."""
    found = metadata_load(path)
    (entry,) = found["model-index"]
    assert entry["name"]
    for result in entry["results"]:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", result["task"]["type"])
        assert re.fullmatch(r"[\w.-]+/[\w.-]+|[a-z0-9]+(-[a-z0-9]+)*", result["dataset"]["type"])
        assert result["dataset"]["name"].strip()
        assert result["metrics"]
        for metric in result["metrics"]:
            assert re.fullmatch(r"\w+", metric["type"])
            assert isinstance(metric["value"], float)
            assert math.isfinite(metric["value"])
    name, results = model_index_to_eval_results(found["model-index"])
    assert eval_results_to_model_index(name, results) == found["model-index"]
    assert yaml.safe_load(ModelCardData(**found, ignore_metadata_errors=False).to_yaml()) == found
    return found
