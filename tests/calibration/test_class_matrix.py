"""The heat map of a class matrix: what it shows is read out of the figure and compared with the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hf_logitmix.plots import class_matrix
from hf_logitmix.targets import mcel

MATRIX = [[0.0, 0.25, 0.75], [0.5, 0.0, 0.5], [0.996, 0.004, 0.0]]
NAMES = ["no", "maybe", "yes"]


def cells(figure: Figure) -> dict[tuple[int, int], str]:
    """The text of each cell by (row, column), from where it stands: x is the column."""
    found = {}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        found[round(y), round(x)] = text.get_text()
    return found


def test_every_cell_carries_its_number():
    assert cells(class_matrix(MATRIX, NAMES)) == {
        **{(0, 0): ".00", (0, 1): ".25", (0, 2): ".75"},
        **{(1, 0): ".50", (1, 1): ".00", (1, 2): ".50"},
        **{(2, 0): "1.00", (2, 1): ".00", (2, 2): ".00"},
    }


@pytest.mark.parametrize("count", [2, 7, 20])
def test_texts_are_the_numbers_of_their_cells(count):
    matrix = np.random.default_rng(0).random((count, count)) * 3
    shown = cells(class_matrix(matrix, [f"class {k}" for k in range(count)]))
    assert len(shown) == count**2
    for (row, column), text in shown.items():
        assert float(text) == pytest.approx(matrix[row, column], abs=0.005 + 1e-9)


def test_colours_are_the_numbers_too():
    axes, bar = class_matrix(MATRIX, NAMES).axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), MATRIX)
    assert image.get_clim() == (0.0, 0.996)
    assert bar.get_ylim() == (0.0, 0.996)
    assert image.cmap(0.0)[:3] > image.cmap(1.0)[:3]


def test_dark_cells_have_light_texts():
    """Brightness of the cell behind each text: the two are never close."""
    axes = class_matrix(np.linspace(0, 1, 16).reshape(4, 4), list("abcd")).axes[0]
    for text in axes.texts:
        column, row = text.get_position()
        colour = axes.images[0].to_rgba(axes.images[0].get_array()[row, column])
        brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        assert abs(brightness - (1.0 if text.get_color() == "white" else 0.0)) > 0.3


def test_names_stand_at_rows_and_columns():
    figure = class_matrix(MATRIX, NAMES, title="SST-3")
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == NAMES
        assert axis.get_ticklocs().tolist() == [0, 1, 2]
    assert axes.get_ylabel() == "class of the label"
    assert figure.get_suptitle() == "SST-3"
    assert class_matrix(MATRIX, NAMES).get_suptitle() == ""


def test_long_names_stand_upright():
    short, long = (class_matrix(np.eye(4), names).axes[0] for names in (list("abcd"), ["a rather long name"] * 4))
    assert {label.get_rotation() for label in short.get_xticklabels()} == {0.0}
    assert {label.get_rotation() for label in long.get_xticklabels()} == {90.0}


def test_many_classes_have_no_texts():
    figure = class_matrix(np.eye(21), [str(k) for k in range(21)])
    assert cells(figure) == {}
    assert len(figure.axes[0].get_xticklabels()) == 21


def test_tensors_that_are_learned_can_be_shown():
    weight = torch.tensor(0.3, requires_grad=True)
    rows = mcel(torch.tensor(MATRIX), 0.0) * weight
    assert cells(class_matrix(rows, NAMES))[1, 1] == ".30"


def test_the_figure_can_be_saved(tmp_path):
    path = tmp_path / "matrix.png"
    class_matrix(MATRIX, NAMES).savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (MATRIX, ["no", "yes"], r"matrix of shape \(3, 3\) and 2 names"),
        (MATRIX[:2], NAMES, r"matrix of shape \(2, 3\) and 3 names"),
        (MATRIX[0], NAMES, r"matrix of shape \(3,\) and 3 names"),
        ([MATRIX], NAMES, r"matrix of shape \(1, 3, 3\)"),
        (torch.ones(3, 4), NAMES, r"matrix of shape \(3, 4\)"),
    ],
)
def test_matrices_that_are_refused(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        class_matrix(matrix, names)


def test_numbers_of_two_digits():
    shown = cells(class_matrix([[10.25, 0.5], [100.0, 20.0]], ["no", "yes"]))
    assert [float(shown[place]) for place in np.ndindex(2, 2)] == [10.25, 0.5, 100.0, 20.0]
