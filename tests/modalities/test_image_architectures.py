"""Every image-classification class of transformers and every module of timm; see image_architectures.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from helpers.image_architectures import (
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
from helpers.levels import check_row, rows_of

TEXTS = (Path(__file__).parents[2] / "docs" / "image_architectures.md").read_text().split("\n## timm\n")
CLASS_TABLE, TIMM_TABLE = map(rows_of, TEXTS)
# rows of other releases of transformers or timm than the tables': timm 1.0.27 tells fewer features of these modules
ELSEWHERE = {
    "coat": "| coat | coat_tiny | holds | embedding, pooled (linear) | hidden:1 to hidden:3: lam = 0 is not the "
    "partner |",
    "convit": "| convit | convit_tiny | holds | embedding, hidden:1 (linear), pooled (linear) |  |",
    "convmixer": "| convmixer | convmixer_768_32 | holds | embedding, pooled (linear) |  |",
    "crossvit": "| crossvit | crossvit_tiny_240 | holds | embedding | hidden:1, hidden:2: lam = 0 is not the partner; "
    "pooled: lam = 0 is not the partner |",
    "visformer": "| visformer | visformer_tiny | holds | embedding, pooled (linear) |  |",
}


QUICK = tuple(f"{name}ForImageClassification" for name in ("ConvNext", "Cvt", "PvtV2", "ResNet", "TimmWrapper", "ViT"))


def class_table_is_of_this_version():
    return f"transformers {transformers.__version__}:" in TEXTS[0]


def timm_table_is_of_this_version():
    timm = pytest.importorskip("timm")
    return f"timm {timm.__version__} " in TEXTS[1] and class_table_is_of_this_version()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CLASSES]
)
def test_mixing_holds(name):
    """A new class of a later release fails here until image_architectures.py can build it: none is passed over."""
    if name == "TimmWrapperForImageClassification":
        pytest.importorskip("timm")
    if name == "PvtForImageClassification" and Version(transformers.__version__) < Version("5.10"):
        pytest.skip("PVT of transformers 5.9 has two classes, whatever num_labels says")
    check_row(row_of_class(name), CLASS_TABLE, class_table_is_of_this_version(), ELSEWHERE)


@pytest.mark.parametrize(
    "module",
    [name if name == "vision_transformer" else pytest.param(name, marks=pytest.mark.slow) for name in sorted(TIMM)],
)
def test_mixing_holds_on_timm(module):
    timm = pytest.importorskip("timm")
    if module not in timm.list_modules():
        pytest.skip(f"timm {timm.__version__} has no {module}")
    if not timm.is_model(TIMM[module][0]):
        pytest.skip(f"timm {timm.__version__} has no {TIMM[module][0]}")
    check_row(row_of_timm(module), TIMM_TABLE, timm_table_is_of_this_version(), ELSEWHERE)


def test_no_module_of_timm_is_passed_over():
    """A new module of a later release fails here until it has a line in `TIMM`."""
    timm = pytest.importorskip("timm")
    ours = {"small_models"}  # that of hf_logitmix.vision, once it is imported
    assert set(timm.list_modules()) - ours <= {*TIMM}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BARE)
def test_mixing_holds_on_timm_without_a_wrapper(architecture):
    timm = pytest.importorskip("timm")
    options = {"img_size": 32} if architecture == "test_vit" else {}
    found = check(Bare(draw(timm.create_model(architecture, num_classes=3, **options))))
    assert found.startswith("embedding, hidden:1")
    assert found.endswith(" | ")  # no level that does not hold


@pytest.mark.parametrize(
    ("text", "table", "names", "is_of_this_version"),
    [
        (TEXTS[0], CLASS_TABLE, {*CLASSES}, class_table_is_of_this_version),
        (TEXTS[1], TIMM_TABLE, {*TIMM}, timm_table_is_of_this_version),
    ],
)
def test_the_tables_count_their_rows(text, table, names, is_of_this_version):
    if is_of_this_version():
        assert {*table} == names
    assert f"{sum(map(holds, table.values()))} of the {len(table)} " in " ".join(text.split())


def test_exceptions_name_what_there_is():
    """A name that transformers or timm drops must not stay behind as an exception."""
    assert {*NOT_TRIED, *REFUSED} <= {*CLASSES}
    assert {*SPECIAL} <= {*CLASSES.values()}
