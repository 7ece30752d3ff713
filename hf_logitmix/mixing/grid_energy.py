"""Maps of levels on a grid of blocks, and those of low energy for a whole batch at once, in torch alone.

A level k in 0..n-1 stands for the share m = k / (n - 1). An energy has a cost for each block and level, and one for
neighbours that differ; PuzzleMix asks for the map of least energy, which its released code finds by graph cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_STATES = 16  # combinations of levels in a row of blocks up to which maps are solved exactly
_MESSAGES = 8  # rounds of belief propagation
_OPPOSITE = (1, 0, 3, 2)  # of above, below, before, after
_SWEEPS = 2  # of the relaxation
_ROUNDINGS = (-0.2, 0.0, 0.2)  # added to the relaxed levels before they are rounded


class Energy(NamedTuple):
    """What a map of levels costs.

    .. math:: E(k) = \\sum_i U_{i,k_i} + \\sum_{i \\sim j} W_{ij} (m_i - m_j)^2, \\qquad m = k / (n - 1)

    Attributes:
        unary: U, [B, g, g, n].
        down: W of each block and the one below, [B, g-1, g].
        right: W of each block and the one on its right, [B, g, g-1].
    """

    unary: Tensor
    down: Tensor
    right: Tensor

    def of(self, levels: Tensor) -> Tensor:
        """The energy of LongTensor[..., B, g, g] levels, [..., B]."""
        share = levels.to(self.unary.dtype) / (self.unary.shape[-1] - 1)
        unary = self.unary.expand(*levels.shape, -1).gather(-1, levels.unsqueeze(-1)).squeeze(-1)
        down = self.down * share.diff(dim=-2).square()
        right = self.right * share.diff(dim=-1).square()
        return sum(term.sum((-2, -1)) for term in (unary, down, right))  # type: ignore[return-value]


def find_levels(energy: Energy) -> Tensor:
    """Levels of low energy, LongTensor[B, g, g].

    Small maps are solved exactly, row by row. Two levels of larger ones are found by belief propagation, more by
    rounding a convex relaxation in several ways; both then go downhill one block at a time, red and black, and the
    best is kept, or one level everywhere if that is better. No step waits for the device.

    Args:
        energy: with couplings that are not negative, and a unary that is convex in the level (as `label_energy` makes
            them); others are solved worse.
    """
    *_, size, levels = energy.unary.shape
    if levels**size <= _STATES:
        return _by_rows(energy)
    rise = tuple(part.movedim(0, -1).contiguous() for part in energy.unary.diff(dim=-1).unbind(-1))
    weights = _couplings(energy)
    start = _by_messages(rise, weights) if levels == 2 else _relaxed(rise, weights)
    shares = _downhill(start, rise, weights, descents=2 if levels > 2 and size > 8 else 1)
    found = (shares * (levels - 1)).round_().long().movedim(-1, 1)
    least, chosen = energy.of(found).min(0)
    found = found.gather(0, chosen.view(1, -1, 1, 1).expand(1, *found.shape[1:])).squeeze(0)
    # where neighbours pull hard, one level everywhere may be better than what any block finds by itself
    constant, level = energy.unary.sum((1, 2)).min(1)
    return torch.where((constant < least).view(-1, 1, 1), level.view(-1, 1, 1), found)


def _by_rows(energy: Energy) -> Tensor:
    """The levels of least energy by dynamic programming, with a state for every combination of levels in a row."""
    unary, down, right = energy
    size, levels = unary.shape[2:]
    states = torch.cartesian_prod(*[torch.arange(levels, device=unary.device)] * size)
    share = states.to(unary.dtype) / (levels - 1)
    apart = (share[:, None] - share).square().flatten(0, 1)
    with torch.autocast(unary.device.type, enabled=False):  # which would round what is compared
        own = unary.flatten(2) @ F.one_hot(states, levels).to(unary.dtype).flatten(1).T
        own = own + right @ share.diff(dim=1).square().T
        steps = (down @ apart.T).unflatten(-1, (len(states), -1))  # [B, g - 1, above, below]
    cost, came_from = own[:, 0], []
    for row in range(1, size):
        cost, before = (cost.unsqueeze(-1) + steps[:, row - 1]).min(1)
        cost = cost + own[:, row]
        came_from.append(before)
    path = [cost.argmin(1, keepdim=True)]
    for before in reversed(came_from):
        path.append(before.gather(1, path[-1]))
    return states[torch.cat(path[::-1], 1)]


# Below, the images of a batch come last: what is done to a block is done to a contiguous row of them. `rise` holds what
# each level costs more than the one before, [g, g, B] each; `weights` are `_couplings`; shares are [R, g, g, B] for R
# maps of every image.


def _by_messages(rise: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """One map of two levels by min-sum belief propagation.

    A block tells each neighbour what being 1 is worth to it: all that speaks for 1 but the neighbour's own word, and at
    most what it costs to differ.
    """
    told, tells = ([_framed(torch.zeros_like(rise[0])) for _ in weights] for _ in range(2))
    least = [-weight for weight in weights]
    for _ in range(_MESSAGES):
        heard = [told[back].around[k] for k, back in enumerate(_OPPOSITE)]
        belief = sum(heard, -rise[0])
        for k, weight in enumerate(weights):
            torch.clamp(belief - heard[k], least[k], weight, out=tells[k].inside)
        told, tells = tells, told
    belief = sum((told[back].around[k] for k, back in enumerate(_OPPOSITE)), -rise[0])
    return (belief > 0).to(belief.dtype).unsqueeze(0)


def _relaxed(rise: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Several roundings of the best shares if all of [0, 1] were allowed; for three levels or more."""
    steps = len(rise)
    # the unary as b m + a m^2 / 2
    curve = (rise[-1] - rise[0]) * (steps**2 / (steps - 1))
    slope = sum(rise[1:], rise[0]) - curve / 2
    stiffness = (2 * sum(weights[1:], weights[0]) + curve).clamp_min(1e-12)
    scaled, alone = [2 * weight / stiffness for weight in weights], -slope / stiffness
    relaxed, around = _framed((-slope / curve.clamp_min(1e-12)).clamp(0, 1))
    overshoots = [1.5 * colour for colour in _colours(relaxed)]
    for _ in range(_SWEEPS):
        for overshoot in overshoots:
            wanted = alone.addcmul(scaled[0], around[0])
            for weight, values in zip(scaled[1:], around[1:], strict=True):
                wanted.addcmul_(weight, values)
            relaxed.lerp_(wanted.clamp_(0, 1), overshoot).clamp_(0, 1)
    offsets = torch.tensor(_ROUNDINGS, dtype=relaxed.dtype).to(relaxed.device, non_blocking=True).view(-1, 1, 1, 1)
    return (relaxed * steps + offsets).round_().clamp_(0, steps) / steps


def _downhill(shares: Tensor, rise: Sequence[Tensor], weights: Sequence[Tensor], descents: int) -> Tensor:
    """The shares after every block took its best level given its neighbours: all red blocks, then all black ones."""
    steps, degree = len(rise), sum(weights[1:], weights[0])
    shares, around = _framed(shares)
    # going from level j to j + 1 pays where the neighbours' pull is above a threshold
    thresholds = [step * (steps / 2) + degree * ((2 * j + 1) / (2 * steps)) for j, step in enumerate(rise)]
    for _ in range(descents):
        for colour in _colours(shares):
            force = weights[0] * around[0]
            for weight, values in zip(weights[1:], around[1:], strict=True):
                force.addcmul_(weight, values)
            best = (force > thresholds[0]).to(shares.dtype)
            for threshold in thresholds[1:]:
                best += force > threshold
            shares.lerp_(best.div_(steps), colour)
    return shares


def _couplings(energy: Energy) -> tuple[Tensor, ...]:
    """The weights of each block with the one above, below, before and after it; 0 at the border."""
    down, right = (part.movedim(0, -1) for part in energy[1:])
    sides = F.pad(down, (0, 0, 0, 0, 1, 0)), F.pad(down, (0, 0, 0, 0, 0, 1)), F.pad(right, (0, 0, 1, 0))
    return tuple(side.contiguous() for side in (*sides, F.pad(right, (0, 0, 0, 1))))


def _colours(values: Tensor) -> tuple[Tensor, Tensor]:
    """1 on the red blocks of a chessboard, and 1 on the black ones, [g, g, 1]."""
    rows, columns = (torch.arange(size, device=values.device) for size in values.shape[-3:-1])
    red = ((rows[:, None] + columns) % 2 == 0).to(values.dtype).unsqueeze(-1)
    return red, 1 - red


class _Framed(NamedTuple):
    """Values inside a frame of zeros, and those above, below, before and after each; all are views."""

    inside: Tensor
    around: list[Tensor]


def _framed(values: Tensor) -> _Framed:
    whole = F.pad(values, (0, 0, 1, 1, 1, 1))
    middle, rows = whole[..., 1:-1, :], whole[..., 1:-1, :, :]
    around = [middle[..., :-2, :, :], middle[..., 2:, :, :], rows[..., :-2, :], rows[..., 2:, :]]
    return _Framed(middle[..., 1:-1, :, :], around)
