"""Made-up images, for demos and tests without a download."""

from __future__ import annotations

import math

import numpy as np

SHAPE_NAMES = (
    *("disc", "ring", "square", "frame", "triangle"),
    *("cross", "crescent", "bar", "stripes", "checkers"),
)


def draw_shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw shapes of random colour, place, size and tilt, with three smaller ones in the way and heavy noise.

    Args:
        count: number of images; each of the ten classes has a tenth of them.
        seed: the same seed gives the same images.

    Returns:
        UIntArray[count, 32, 32, 3] and IntArray[count], classes as in `SHAPE_NAMES`.
    """
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(count) % len(SHAPE_NAMES))
    background = generator.uniform(0.2, 0.6, (count, 1, 1, 3))
    slope = generator.normal(0, 0.06, (count, 2, 1, 1, 3))
    across, down = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    canvas = background + slope[:, 0] * across[..., None] + slope[:, 1] * down[..., None]

    def paint(classes: np.ndarray, size: tuple[float, float], reach: float, tilt: float) -> None:
        x, y = generator.uniform(-reach, reach, (2, count, 1, 1))
        radius, angle = generator.uniform(*size, (count, 1, 1)), generator.uniform(-tilt, tilt, (count, 1, 1))
        u = ((across - x) * np.cos(angle) + (down - y) * np.sin(angle)) / radius
        v = ((down - y) * np.cos(angle) - (across - x) * np.sin(angle)) / radius
        tint = generator.normal(0, 0.12, (count, 1, 1, 3))
        colour = background + generator.uniform(0.1, 0.4, (count, 1, 1, 1)) + tint
        inside = np.choose(classes[:, None, None], _shapes(u, v))
        np.copyto(canvas, colour, where=inside[..., None])

    paint(labels, size=(0.5, 0.75), reach=0.25, tilt=0.4)
    for _ in range(3):
        paint(generator.integers(0, len(SHAPE_NAMES), count), size=(0.1, 0.25), reach=0.95, tilt=math.pi)
    canvas += generator.normal(0, 0.15, canvas.shape)
    return np.rint(canvas.clip(0, 1) * 255).astype(np.uint8), labels


def _shapes(u: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    """Where each of `SHAPE_NAMES` is, in coordinates that reach from -1 to 1 inside it."""
    radius, edge = np.hypot(u, v), np.maximum(abs(u), abs(v))
    return [
        radius < 0.85,
        (radius > 0.55) & (radius < 1),
        edge < 0.75,
        (edge > 0.5) & (edge < 0.85),
        (v < 0.7) & (v > 2 * abs(u) - 1),
        (np.minimum(abs(u), abs(v)) < 0.28) & (edge < 0.95),
        (radius < 0.95) & (np.hypot(u - 0.45, v) > 0.7),
        (abs(v) < 0.35) & (abs(u) < 1),
        (radius < 1) & (np.sin(7 * v) > 0),
        (radius < 1) & (np.sin(6 * u) * np.sin(6 * v) > 0),
    ]
