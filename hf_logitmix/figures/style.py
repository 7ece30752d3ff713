"""What the figures have in common: colours, lines, and axes without a frame on the right and above."""

from __future__ import annotations

from typing import Any

COLOURS = ("#3b6fb6", "#d9722e", "#3f8f4f", "#8a4fa8", "#a8321e", "#5f6670", "#1f9aa8", "#b58b1e")
CLASSES = ("#2f6fc1", "#e0702c", "#2f9e6b", "#8e5bb5", "#c0392b", "#7a6a58", "#d06fa8", "#6b7280", "#a3a52a", "#2aa7b5")


def look_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the line with a number, for ``axes.plot``."""
    styles = ("-", "--", ":", "-.")
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": styles[number // len(COLOURS) % len(styles)]}


def open_axes(axes: Any) -> None:
    """Take away what frames a plot without telling anything, and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
