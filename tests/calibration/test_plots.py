"""The reliability diagram: what it shows is read out of the figure and compared with numbers by hand."""

import math
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_logitmix.plots import class_matrix, reliability_diagram, risk_coverage


def logit(confidence):
    return [math.log(confidence / (1 - confidence)), 0.0]


# Bins of ten: (.7, .8] holds .72 and .78, one right; (.9, 1] holds .96, wrong; (.5, .6] holds .55 twice, both right.
LOGITS = [logit(c) for c in (0.72, 0.78, 0.96, 0.55, 0.55)]
LABELS = [0, 1, 1, 0, 0]
MIDDLE, ACCURACY, GAP, SHARE = [0.55, 0.75, 0.95], [1.0, 0.5, 0.0], [-0.45, 0.25, 0.96], [0.4, 0.4, 0.2]


def bars(container):
    """(centre, bottom, signed height) of each bar, one after the other."""
    return [x for bar in container for x in (bar.get_x() + bar.get_width() / 2, bar.get_y(), bar.get_height())]


def near(*bars):
    return pytest.approx([x for bar in bars for x in bar])


def test_bars_are_accuracy_gap_and_share_of_examples():
    top, bottom = reliability_diagram({"before": (LOGITS, LABELS)}).axes
    accuracy, gap = top.containers
    assert bars(accuracy) == near(*((m, 0.0, a) for m, a in zip(MIDDLE, ACCURACY, strict=True)))
    assert bars(gap) == near(*zip(MIDDLE, ACCURACY, GAP, strict=True))
    assert all(bar.get_width() == pytest.approx(0.1) for bar in accuracy)
    (share,) = bottom.containers
    expected = dict.fromkeys(range(10), 0.0) | {5: 0.4, 7: 0.4, 9: 0.2}
    assert bars(share) == near(*(((b + 0.5) / 10, 0.0, height) for b, height in expected.items()))


FIGURES = {
    "reliability_diagram": lambda: reliability_diagram({"before": (LOGITS, LABELS)}),
    "risk_coverage": lambda: risk_coverage({"before": (LOGITS, LABELS)}),
    "class_matrix": lambda: class_matrix(np.eye(2), ["a", "b"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_what_is_returned(name, monkeypatch):
    """What a cell ends with is asked for ``_repr_png_``; pyplot has no part in it, and no figure is left open in it."""
    figure = FIGURES[name]()
    shown = Image.open(BytesIO(figure._repr_png_()))
    assert (shown.format, shown.size) == ("PNG", tuple(figure.get_size_inches().astype(float) * figure.dpi // 1))
    assert np.asarray(shown.convert("L")).std() > 10  # it is not empty
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_text_and_labels_give_the_numbers():
    """ECE .4 * .45 + .4 * .25 + .2 * .96; OE .4 * .75 * .25 + .2 * .96 * .96."""
    figure = reliability_diagram({"before": (LOGITS, LABELS)}, title="SST-2")
    top, bottom = figure.axes
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "SST-2"
    assert top.get_title() == "before"
    assert (top.get_ylabel(), bottom.get_xlabel()) == ("accuracy", "confidence")
    assert top.texts[0].get_text().split("\n") == ["accuracy 0.600", "ECE 0.472", "OE 0.259", "n = 5, 10 bins"]


def test_the_diagonal_is_drawn_and_explained():
    figure = reliability_diagram({"before": (LOGITS, LABELS)})
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [0, 1]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "accuracy",
        "mean confidence",
        "gap",
        "calibrated",
    }


def test_number_of_bins():
    """Two bins: all of it is in (.5, 1], with a mean confidence of .712 and three of five right."""
    top, bottom = reliability_diagram({"before": (LOGITS, LABELS)}, n_bins=2).axes
    assert bars(top.containers[0]) == near((0.75, 0.0, 0.6))
    assert bars(top.containers[1]) == near((0.75, 0.6, 0.112))
    assert bars(bottom.containers[0]) == near((0.25, 0.0, 0.0), (0.75, 0.0, 1.0))


def test_each_panel_shows_its_own_data():
    right = [0, 0, 0, 0, 0]
    figure = reliability_diagram({"before": (LOGITS, LABELS), "after": (LOGITS, right)})
    before, after, shares_before, shares_after = figure.axes
    assert [axes.get_title() for axes in (before, after)] == ["before", "after"]
    assert bars(before.containers[0]) == near(*((m, 0.0, a) for m, a in zip(MIDDLE, ACCURACY, strict=True)))
    assert bars(after.containers[0]) == near(*((m, 0.0, 1.0) for m in MIDDLE))
    for shares in (shares_before, shares_after):
        filled = [bar.get_height() for bar in shares.containers[0] if bar.get_height()]
        assert filled == pytest.approx(SHARE)


@pytest.mark.parametrize("classes", [2, 5, 6, 8])
def test_a_bar_on_an_edge_is_the_bin_that_the_metrics_use(classes):
    """Equal logits, confidence 1/K with K bins: the first bin, and the ECE in the corner agrees with the gap shown."""
    logits = [[0.0] * classes, [math.log(1.5 / (classes - 1.5) * (classes - 1))] + [0.0] * (classes - 1)]
    top = reliability_diagram({"": (logits, [0, 1])}, n_bins=classes).axes[0]
    heights = [bar.get_height() for bar in top.containers[1]]
    assert heights == pytest.approx([1 / classes - 1, 1.5 / classes])
    assert f"ECE {sum(abs(height) / 2 for height in heights):.3f}" in top.texts[0].get_text()


def test_saving(tmp_path):
    path = tmp_path / "reliability.png"
    reliability_diagram({"before": (LOGITS, LABELS)}).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_no_panels():
    with pytest.raises(ValueError, match="panels is empty"):
        reliability_diagram({})


@pytest.mark.parametrize(
    ("logits", "labels", "n_bins", "message"),
    [
        ([[0.0, math.nan]], [0], 10, "NaN"),
        ([], [], 10, "logits"),
        ([[1.0]], [0], 10, "one column"),
        ([[0.0, 1.0]], [2], 10, "labels"),
        ([[0.0, 1.0]], [0], 0, "n_bins=0"),
    ],
)
def test_bad_panels(logits, labels, n_bins, message):
    with pytest.raises(ValueError, match=message):
        reliability_diagram({"before": (logits, labels)}, n_bins=n_bins)


def test_the_band_holds_what_samples_with_replacement_give():
    """Each example drawn by itself, ten thousand times; a bin without an example in a sample does not count."""
    figure = reliability_diagram({"before": (LOGITS, LABELS)}, bootstrap=20_000, seed=1)
    band = next(c for c in figure.axes[0].containers if type(c).__name__ == "ErrorbarContainer")
    (segments,) = (lines.get_segments() for lines in band[2])
    rng = np.random.default_rng(0)
    bins, hits = np.array([7, 7, 9, 5, 5]), np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    for centre, (below, above) in zip((5, 7, 9), segments, strict=True):
        means = []
        for drawn in rng.integers(5, size=(10_000, 5)):
            inside = drawn[bins[drawn] == centre]
            if len(inside):
                means.append(hits[inside].mean())
        low, high = np.quantile(means, [0.025, 0.975])
        assert (below[1], above[1]) == pytest.approx((low, high), abs=0.02)
        assert below[0] == pytest.approx((centre + 0.5) / 10)


def test_without_a_band_there_is_none_and_a_negative_number_is_refused():
    assert len(reliability_diagram({"before": (LOGITS, LABELS)}).axes[0].containers) == 2
    with pytest.raises(ValueError, match="bootstrap=-1: pass how many samples"):
        reliability_diagram({"before": (LOGITS, LABELS)}, bootstrap=-1)


def test_the_risk_curve_is_the_share_of_wrong_answers_so_far():
    """By confidence: .96 wrong, .78 wrong, .72 right, then two of .55, both right."""
    figure = risk_coverage({"before": (LOGITS, LABELS), "after": (LOGITS[::-1], LABELS[::-1])})
    (axes,) = figure.axes
    risks = [1, 1, 2 / 3, 2 / 4, 2 / 5]
    for line in axes.lines:
        assert line.get_xdata().tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert line.get_ydata().tolist() == pytest.approx(risks)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{name}, AURC {sum(risks) / 5:.4f}" for name in ("before", "after")
    ]
    with pytest.raises(ValueError, match="panels is empty"):
        risk_coverage({})
