"""Terms of losses over training, against plain arithmetic."""

import pytest

from hf_logitmix.evidence.plots import learning_curves, reliability_grid, terms_of

HISTORY = [
    {"loss": 3.0, "data_loss": 1.0, "mixed_loss": 2.0, "grad_norm": 9.0, "learning_rate": 0.1, "epoch": 1, "step": 5},
    {"loss": 2.0, "data_loss": 0.5, "mixed_loss": 1.5, "learning_rate": 0.1, "epoch": 2, "step": 10},
    {"eval_loss": 7.0, "epoch": 2, "step": 10},
]


def test_terms_are_means_over_runs():
    other = [{**entry, "data_loss": 3.0} if "loss" in entry else entry for entry in HISTORY]
    assert terms_of([HISTORY, other]) == {"data_loss": ([5, 10], [2.0, 1.75]), "mixed_loss": ([5, 10], [2.0, 1.5])}


def test_a_loss_of_one_term_is_that_term():
    assert terms_of([[{"loss": 3.0, "step": 1, "epoch": 0.1}]]) == {"loss": ([1], [3.0])}


def test_speeds_are_no_terms():
    of_images = [{"loss": 3.0, "images_per_second": 900.0, "num_input_tokens_seen": 10, "step": 1, "epoch": 0.1}]
    assert terms_of([of_images]) == {"loss": ([1], [3.0])}


def test_the_curves_that_are_drawn_are_these():
    figure = learning_curves({"logitmix": [HISTORY], "vanilla": [[{"loss": 1.0, "step": 5}]]})
    lines = {line.get_label(): list(line.get_ydata()) for axes in figure.axes for line in axes.lines}
    assert lines == {"data_loss": [1.0, 0.5], "mixed_loss": [2.0, 1.5], "loss": [1.0]}


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^panels is empty"):
        reliability_grid({})
