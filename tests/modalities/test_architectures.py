"""Every sequence-classification architecture of transformers, built tiny; see architectures.py for the properties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from helpers.architectures import (
    BESIDE,
    MODEL_TYPES,
    NEEDS_OTHER_PACKAGES,
    PAIRS,
    inputs_of,
    row_beside,
    row_of,
    unequal_section,
)
from helpers.levels import check_row, rows_of
from helpers.tiny_models import tiny_model
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.mixing import Linear
from hf_logitmix.modalities.layers import layers_of, levels

TEXT = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
TABLE = rows_of(TEXT.split("## Sentences of unequal length")[0])
IS_OF_THIS_VERSION = f"transformers {transformers.__version__}:" in TEXT
ELSEWHERE = {  # rows of other releases of transformers than the table's
    "doge": "| doge | embedding, hidden:1, hidden:2 | pooled: the head scores every token | union | not compared: a "
    "padded row has other logits alone than in its batch |",  # 5.9
}


QUICK = ("bert", "deberta-v2", "gpt2", "llama", "t5", "xlnet", "zamba2")


def slow_but(quick, names):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("model_type", slow_but(QUICK, MODEL_TYPES))
def test_mixing_holds(model_type):
    """A new architecture of a later release fails here until tiny_models.py can build it: none is passed over."""
    check_row(row_of(model_type), TABLE, IS_OF_THIS_VERSION, ELSEWHERE)


@pytest.mark.parametrize("model_type", slow_but(("layoutlmv3", "lilt"), BESIDE))
def test_what_is_beside_the_words(model_type):
    check_row(row_beside(model_type), TABLE, IS_OF_THIS_VERSION, ELSEWHERE)


def test_the_table_counts_its_rows():
    names = {*TABLE} - {f"{name} {what}" for name, (what, _) in BESIDE.items()}
    tried = len(names) - sum("not tried" in TABLE[name] for name in names)
    assert f"{tried} of the {len(names)} " in " ".join(TEXT.split())
    assert sum(row.endswith("| equal |") for row in TABLE.values()) == int(TEXT.split("On ")[1].split()[0])
    if IS_OF_THIS_VERSION:
        assert names == {*MODEL_TYPES}
    assert {*NEEDS_OTHER_PACKAGES} <= {*MODEL_TYPES}


def test_the_section_on_unequal_lengths_is_of_its_record():
    assert TEXT.endswith(unequal_section())
    folder = Path(__file__).parents[2]
    record = json.loads((folder / "benchmarks" / "unequal_lengths.json").read_text())["architectures"]
    assert {name: TABLE[name].split(" | ")[3].split(",")[0] for name in record} == {
        name: found["masks"] for name, found in record.items()
    }
    soft = sum(found["masks"] == "soft" for found in record.values())
    assert f"[{soft} of {len(record)} architectures]" in (folder / "README.md").read_text()


def test_every_level_of_a_reversible_network_has_right_gradients():
    """A network that finds the input of a layer from its output cannot be mixed in between: against differences."""
    model = tiny_model("reformer").double().train()
    inputs, plan = inputs_of(model), MixPlan(PAIRS.partner, PAIRS.lam.double())
    weight = next(m for m in model.modules() if isinstance(m, torch.nn.Linear)).weight
    for level in levels(layers_of(model)):

        def loss(level=level):
            torch.manual_seed(0)
            return mixed_forward(model, inputs, plan, mixing=Linear(level=level)).mixed_logits.square().sum()

        model.zero_grad()
        loss().backward()
        direction, step = torch.randn_like(weight), 1e-6
        with torch.no_grad():
            weight.add_(direction, alpha=step)
            above = loss()
            weight.sub_(direction, alpha=2 * step)
            difference = (above - loss()) / (2 * step)
            weight.add_(direction, alpha=step)
        torch.testing.assert_close((weight.grad * direction).sum(), difference, rtol=1e-4, atol=1e-6)
