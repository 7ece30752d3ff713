"""Every sequence-classification architecture of transformers, built tiny; see architectures.py for the properties."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from architectures import MODEL_TYPES, row_of

TABLE = (Path(__file__).parents[1] / "docs" / "architectures.md").read_text()


QUICK = ("bert", "deberta-v2", "gpt2", "llama", "t5", "xlnet")


@pytest.mark.parametrize(
    "model_type", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODEL_TYPES]
)
def test_mixing_holds(model_type):
    """A new architecture of a later release fails here until tiny_models.py can build it: none is passed over."""
    row = row_of(model_type)
    if f"transformers {transformers.__version__}:" in TABLE:
        assert row in TABLE, "run `python tests/architectures.py`"
