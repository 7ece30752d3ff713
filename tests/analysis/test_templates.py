"""The plane of three templates against numpy's QR, and against what a projection must keep."""

import numpy as np
import pytest

from hf_logitmix.analysis import project_on_templates

RNG = np.random.default_rng(0)
FEATURES, WEIGHT, BIAS = RNG.normal(size=(20, 7)), RNG.normal(size=(5, 7)), RNG.normal(size=5)


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("classes", [(0, 1, 2), (4, 0, 3)])
def test_coordinates_are_those_of_a_qr_by_hand(bias, classes):
    points, stars = project_on_templates(FEATURES, WEIGHT, classes, bias)
    x, w = FEATURES, WEIGHT
    if bias is not None:
        x, w = np.hstack([x, np.ones((20, 1))]), np.hstack([w, bias[:, None]])
    a, b, c = (w[k] for k in classes)
    q, r = np.linalg.qr(np.stack([b - a, c - a], axis=1))
    q = q * np.sign(np.diag(r))  # the signs that Gram and Schmidt give
    middle = (a + b + c) / 3
    np.testing.assert_allclose(points, [[q[:, 0] @ (row - middle), q[:, 1] @ (row - middle)] for row in x])
    np.testing.assert_allclose(stars, np.stack([a - middle, b - middle, c - middle]) @ q)


def test_distances_of_the_templates_are_kept_and_no_feature_gets_further_away():
    points, stars = project_on_templates(FEATURES, WEIGHT, (1, 2, 4))
    for i, k in enumerate((1, 2, 4)):
        for j, other in enumerate((1, 2, 4)):
            assert np.linalg.norm(stars[i] - stars[j]) == pytest.approx(np.linalg.norm(WEIGHT[k] - WEIGHT[other]))
        before = np.linalg.norm(FEATURES - WEIGHT[k], axis=1)
        assert (np.linalg.norm(points - stars[i], axis=1) <= before + 1e-9).all()


def test_what_lies_in_the_plane_keeps_its_place():
    mixes = np.array([[0.2, 0.3, 0.5], [1.5, -1.0, 0.5]])  # weights that sum to 1
    points, stars = project_on_templates(mixes @ WEIGHT[:3], WEIGHT, (0, 1, 2))
    np.testing.assert_allclose(points, mixes @ stars, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": (0, 1)}, r"classes=\[0, 1\]: pass three different ones of 0..4"),
        ({"classes": (0, 1, 1)}, "three different"),
        ({"classes": (0, 1, 5)}, "three different"),
        ({"features": FEATURES[:, :3]}, r"\(20, 3\) and weight \(5, 7\)"),
        ({"weight": np.ones((5, 7))}, "classes 0 and 1 have one template"),
        ({"weight": np.outer(np.arange(5.0), np.ones(7))}, r"classes \[0, 1, 2\] lie on one line"),
    ],
)
def test_what_has_no_plane_is_refused(changes, says):
    given = {"features": FEATURES, "weight": WEIGHT, "classes": (0, 1, 2), **changes}
    with pytest.raises(ValueError, match=says):
        project_on_templates(**given)
