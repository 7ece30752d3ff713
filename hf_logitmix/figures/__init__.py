"""Figures of the papers, each a function of arrays that gives a matplotlib Figure; `hf-logitmix figure` draws them."""

# ruff: noqa: E402
from __future__ import annotations

from hf_logitmix import _requirements

_requirements.require(_requirements.PLOTS, "hf_logitmix.figures")

from hf_logitmix.figures.ablation import loss_ablation
from hf_logitmix.figures.curves import metric_curves
from hf_logitmix.figures.embedding import embedding_over_training
from hf_logitmix.figures.information import information_over_training
from hf_logitmix.figures.projection import template_projections
from hf_logitmix.figures.soft_targets import soft_targets_over_training
from hf_logitmix.figures.surfaces import probability_surfaces
from hf_logitmix.figures.temperature import metrics_over_temperature

__all__ = [
    "embedding_over_training",
    "information_over_training",
    "loss_ablation",
    "metric_curves",
    "metrics_over_temperature",
    "probability_surfaces",
    "soft_targets_over_training",
    "template_projections",
]
