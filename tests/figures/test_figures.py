"""What the figures draw of arrays that are made up, and what they refuse."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_logitmix import figures
from hf_logitmix.analysis.runs import Curve

NAN = float("nan")


def curve(x, mean, std=0.0, runs=1) -> Curve:
    every = np.ones(len(x))
    return Curve(np.array(x), np.array(mean), std * every, runs * every)


def test_curves_have_a_band_where_runs_are_several_and_single_values_go_across():
    several = curve([0, 1, 2], [0.5, 0.6, 0.7], np.array([0.1, 0.0, 0.2]), np.array([2, 1, 3]))
    panels = {"a": ({"x": several, "y": curve([1], [0.2])}, {"z": curve([NAN], [0.4])})}
    figure = figures.metric_curves(panels, "alpha", "over")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    band = axes.collections[0].get_paths()[0].vertices
    for x, low, high in ((0, 0.4, 0.6), (1, 0.6, 0.6), (2, 0.5, 0.9)):
        found = band[np.isclose(band[:, 0], x), 1]
        assert (found.min(), found.max()) == pytest.approx((low, high))
    assert len(axes.collections) == 1  # y is of one run
    assert [line.get_ydata()[0] for line in axes.lines] == [0.5, 0.2, 0.4]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y", "z"]
    assert (axes.get_xlabel(), figure.get_suptitle()) == ("alpha", "over")


def test_an_experiment_has_one_colour_in_all_panels():
    one, other = curve([0, 1], [1, 2]), curve([0, 1], [3, 4])
    left, right = figures.metric_curves({"a": ({"x": one, "y": other}, {}), "b": ({"y": other}, {})}, "alpha").axes
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()


def test_a_point_for_each_run_and_a_bar_at_their_mean():
    values = {"mix": [0.1, 0.3], "cls": [0.5]}
    (axes,) = figures.loss_ablation({"accuracy": values}).axes
    assert axes.lines[0].get_xdata().tolist() == [0.1, 0.3]
    assert axes.lines[1].get_xdata() == pytest.approx([0.2, 0.2])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["mix", "cls"]
    assert [text.get_text() for text in axes.texts] == ["0.200", "0.500"]


def test_panels_of_projections_share_one_square():
    small, wide = np.array([[0.0, 0], [1, 1]]), np.array([[-4.0, 0], [9, 3]])
    stars = np.array([[0.0, 0], [1, 0], [0, 1]])
    panels = {"a": (small, [0, 1], stars), "b": (wide, [2, 2], stars)}
    for axes in figures.template_projections(panels, ["x", "y", "z"]).axes:
        low, high = axes.get_xlim()
        assert low < -4 < 9 < high
        assert high - low == pytest.approx(np.diff(axes.get_ylim())[0])


def test_a_histogram_is_that_of_all_values_of_a_snapshot():
    targets = [np.array([[0.1, 0.9]]), np.array([[0.5, 0.5]])]
    left, _, right = figures.soft_targets_over_training([1, 5], targets, targets, [0.7, 0.3]).axes
    mass = left.collections[0].get_array() ** 2
    assert (mass > 0).sum(1).tolist() == [2, 1]
    np.testing.assert_allclose(mass.sum(1), 1)
    assert [bar.get_height() for bar in right.patches] == [0.7, 0.3]


T = np.zeros((3, 2))


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: figures.metric_curves({}, "alpha"), "panels is empty"),
        (lambda: figures.loss_ablation({}), "the same losses"),
        (lambda: figures.loss_ablation({"a": {"mix": [1]}, "b": {"cls": [1]}}), "the same losses"),
        (lambda: figures.metrics_over_temperature({}, [1.0]), "curves is empty"),
        (lambda: figures.information_over_training({}, 5), "curves is empty"),
        (lambda: figures.template_projections({}, ["a", "b", "c"]), "0 panels and 3 classes"),
        (lambda: figures.template_projections({"a": (T, [0, 1, 2], T)}, ["a"]), "1 panels and 1 classes"),
        (lambda: figures.soft_targets_over_training([], [], [], []), "0 steps, 0 targets and 0 soft labels"),
        (lambda: figures.soft_targets_over_training([1], [T], [], []), "1 steps, 1 targets and 0 soft labels"),
        (lambda: figures.embedding_over_training({}, []), "the same number of snapshots"),
        (lambda: figures.embedding_over_training({"a": [(1, T, [0, 1, 2])], "b": []}, ["x"]), "the same number"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, says):
    with pytest.raises(ValueError, match=says):
        draw()
