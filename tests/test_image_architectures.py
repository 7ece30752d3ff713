"""Every image-classification class of transformers and every module of timm; see image_architectures.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from image_architectures import (
    BARE,
    CLASSES,
    NOT_TRIED,
    REFUSED,
    SPECIAL,
    TIMM,
    Bare,
    check,
    draw,
    holds,
    row_of_class,
    row_of_timm,
)

TABLE = (Path(__file__).parents[1] / "docs" / "image_architectures.md").read_text()
CLASS_TABLE, TIMM_TABLE = TABLE.split("\n## timm\n")


QUICK = tuple(f"{name}ForImageClassification" for name in ("ConvNext", "ResNet", "Swin", "TimmWrapper", "ViT"))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]
)
def test_mixing_holds(name):
    """A new class of a later release fails here until image_architectures.py can build it: none is passed over."""
    if name == "TimmWrapperForImageClassification":
        pytest.importorskip("timm")
    row = row_of_class(name)
    if f"transformers {transformers.__version__}:" in CLASS_TABLE:
        assert row in CLASS_TABLE.splitlines(), "run `python tests/image_architectures.py`"


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(TIMM))
def test_mixing_holds_on_timm(module):
    timm = pytest.importorskip("timm")
    if module not in timm.list_modules():
        pytest.skip(f"timm {timm.__version__} has no {module}")
    row = row_of_timm(module)
    if f"timm {timm.__version__} " in TIMM_TABLE:
        assert row in TIMM_TABLE.splitlines(), "run `python tests/image_architectures.py`"


def test_no_module_of_timm_is_passed_over():
    """A new module of a later release fails here until it has a line in `TIMM`."""
    timm = pytest.importorskip("timm")
    ours = {"small_models"}  # that of hf_logitmix.vision, once it is imported
    assert set(timm.list_modules()) - ours <= {*TIMM}


@pytest.mark.parametrize("architecture", BARE)
def test_mixing_holds_on_timm_without_a_wrapper(architecture):
    timm = pytest.importorskip("timm")
    options = {"img_size": 32} if architecture == "test_vit" else {}
    layers = check(Bare(draw(timm.create_model(architecture, num_classes=3, **options))))
    assert layers.startswith("hidden:")


@pytest.mark.parametrize(("table", "names"), [(CLASS_TABLE, {*CLASSES}), (TIMM_TABLE, {*TIMM})])
def test_the_tables_count_their_rows(table, names):
    rows = [
        line for line in table.splitlines() if line.startswith("| ") and not re.match(r"\| (class|module|---) ", line)
    ]
    assert {row.split("|")[1].strip() for row in rows} == names
    assert len(rows) == len(names)
    assert f"{sum(map(holds, rows))} of the {len(rows)} " in " ".join(table.split())


def test_exceptions_name_what_there_is():
    """A name that transformers or timm drops must not stay behind as an exception."""
    assert {*NOT_TRIED, *REFUSED} <= {*CLASSES}
    assert {*SPECIAL} <= {*CLASSES.values()}
