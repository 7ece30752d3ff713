"""A figure of matplotlib that a notebook shows."""

# ruff: noqa: E402
from __future__ import annotations

from hf_logitmix import _requirements

_requirements.require(_requirements.PLOTS, "hf_logitmix.plots")

from io import BytesIO

from matplotlib import figure


class Figure(figure.Figure):
    """A `matplotlib.figure.Figure` that is a picture at the end of a cell, without ``%matplotlib inline`` or pyplot."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
