"""PuzzleMix: mixed images that keep what is salient in both, as pure functions of tensors.

Kim, Choo, Song, Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup, ICML 2020. The energy, its
defaults and the transport are those of the released code; the labels are found here for a whole batch at once, on any
device and without a graph-cut library.

Notation: an image of S x S pixels is cut into g x g blocks. A level k in 0..n-1 says that a block keeps the share
m = k / (n - 1) of the image itself (image 1) and takes the rest from its partner (image 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.plan import MixPlan

_STATES = 16  # combinations of levels in a row of blocks up to which maps are solved exactly
_MESSAGES = 8  # rounds of belief propagation
_OPPOSITE = (1, 0, 3, 2)  # of above, below, before, after
_SWEEPS = 2  # of the relaxation
_ROUNDINGS = (-0.2, 0.0, 0.2)  # added to the relaxed levels before they are rounded
_DENSE_ENTRIES = 2**24  # of transport costs that are held at once


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


def block_mean(values: Tensor, size: int) -> Tensor:
    """The mean over blocks of size x size, [B, C, S, S] to [B, C, S/size, S/size]."""
    return F.avg_pool2d(values, size)


def normalised_saliency(saliency: Tensor, size: int) -> Tensor:
    """Saliency of blocks, which sums to 1 over an image; the same everywhere where an image has none. [B, g, g]."""
    blocks = block_mean(saliency.unsqueeze(1), size).squeeze(1)
    total = blocks.sum((1, 2), keepdim=True)
    even = torch.full_like(blocks, 1 / blocks[0].numel())
    return torch.where(total > 0, blocks / total.clamp_min(torch.finfo(blocks.dtype).tiny), even)


def label_energy(
    images: Tensor,
    saliency: Tensor,
    plan: MixPlan,
    *,
    block_num: int,
    n_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 4,
) -> Energy:
    r"""The energy of mixing each image with its partner.

    .. math::

        E(m) = \sum_i [m_i s^2_i + (1-m_i) s^1_i]
        + \sum_{i \sim j} \tfrac{\beta' \gamma}{2} [m_i (d_{12}+d_{11}) + (1-m_i)(d_{21}+d_{22})
        + m_j (d_{21}+d_{11}) + (1-m_j)(d_{12}+d_{22})]
        + \sum_{i \sim j} \beta' [1 + \tfrac{\gamma}{2}(d_{12}+d_{21}-d_{11}-d_{22})] (m_i-m_j)^2
        - \tfrac{\eta}{g^2} \sum_i \log(\tbinom{n-1}{k_i} \alpha^{k_i} (1-\alpha)^{n-1-k_i} + 10^{-8})

    with :math:`\beta' = \beta / 16 g` and d_ab(i, j) the mean difference of image a in block i and image b in block j
    over the cells that touch, of images pooled to cells of min(neigh_size, S/g) pixels.

    Args:
        images: FloatTensor[B, C, S, S] in [0, 1], not normalised.
        saliency: FloatTensor[B, g, g] that sums to 1 over an image.
        plan: partner, and lam as the prior's alpha.
        block_num: g.
        n_labels: n, the number of levels.
        beta, gamma, eta, neigh_size: as in the equation.
    """
    partner, alpha = plan
    block = images.shape[-1] // block_num
    cell = min(neigh_size, block)
    per_block = block // cell
    first = block_mean(images, cell)
    pictures = {1: first[: len(partner)], 2: first[partner]}

    def touching(a: int, b: int, axis: int) -> Tensor:
        one, other = pictures[a], pictures[b]
        size = one.shape[axis]
        apart = (one.narrow(axis, 0, size - 1) - other.narrow(axis, 1, size - 1)).abs().mean(1)
        at_edges = apart.index_select(axis - 1, torch.arange(per_block - 1, size - 1, per_block, device=apart.device))
        return F.avg_pool2d(at_edges.unsqueeze(1), (1, per_block) if axis == 2 else (per_block, 1)).squeeze(1)

    half, base = beta / (16 * block_num) * gamma / 2, beta / (16 * block_num)
    keeps, takes = saliency[partner].clone(), saliency[: len(partner)].clone()  # the cost of m = 1, and of m = 0
    weights = []
    for axis in (2, 3):
        d11, d12, d21, d22 = (touching(a, b, axis) for a, b in ((1, 1), (1, 2), (2, 1), (2, 2)))
        count = block_num - 1
        keeps.narrow(axis - 1, 0, count).add_(half * (d12 + d11))
        takes.narrow(axis - 1, 0, count).add_(half * (d21 + d22))
        keeps.narrow(axis - 1, 1, count).add_(half * (d21 + d11))
        takes.narrow(axis - 1, 1, count).add_(half * (d12 + d22))
        weights.append(base + half * (d12 + d21 - d11 - d22))
    level = torch.arange(n_labels, device=images.device)
    share = level / (n_labels - 1)
    ways = torch.tensor([math.comb(n_labels - 1, k) for k in range(n_labels)]).to(images.device, non_blocking=True)
    alpha = alpha.to(images.dtype).unsqueeze(1)
    chance = ways * alpha**level * (1 - alpha) ** (n_labels - 1 - level)
    prior = -eta / block_num**2 * (chance + 1e-8).log()
    unary = share * keeps.unsqueeze(-1) + (1 - share) * takes.unsqueeze(-1) + prior[:, None, None]
    return Energy(unary.to(images.dtype), *weights)


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


def transport_plan(saliency: Tensor, wanted: Tensor, t_eps: float = 0.8) -> Tensor:
    r"""Which block moves where, so that what is salient lands in the blocks that are kept.

    Moving block i to place j costs :math:`\epsilon_t\, \mathrm{dist}(i, j)^2 / (t-1)^2 - s_i z_j`. In each of t rounds
    every block bids on its cheapest place and every place keeps its lowest bidder; losers find that place dearer by 1.

    Args:
        saliency: FloatTensor[B, t, t].
        wanted: z, BoolTensor[B, t, t]: where the mask keeps anything of this image.
        t_eps: the cost of distance.

    Returns:
        LongTensor[B, t * t]: for each place the block that comes there, -1 for none.
    """
    size = saliency.shape[-1]
    many = max(1, _DENSE_ENTRIES // size**4)
    return torch.cat([_plan_of(s, z, t_eps) for s, z in zip(saliency.split(many), wanted.split(many), strict=True)])


def _plan_of(saliency: Tensor, wanted: Tensor, t_eps: float) -> Tensor:
    batch, size = len(saliency), saliency.shape[-1]
    places, device = size**2, saliency.device
    at = torch.arange(places, device=device)
    y, x = (at // size).to(saliency.dtype), (at % size).to(saliency.dtype)
    distance = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / max(size - 1, 1) ** 2
    gain = saliency.reshape(batch, places, 1) * wanted.to(saliency.dtype).reshape(batch, 1, places)
    cost = t_eps * distance - gain
    price, place = cost.min(-1)
    block = at.expand(batch, places)
    wins = torch.zeros_like(block, dtype=torch.bool)
    for turn in range(size):
        lowest = torch.zeros_like(price).scatter_reduce_(1, place, price, "amin")
        wins = (price < 0) & (price == lowest.gather(1, place))
        first = torch.full_like(block, places).scatter_reduce_(1, place, torch.where(wins, block, places), "amin")
        wins &= first.gather(1, place) == block
        # a block that has nothing to lose stays only where it is the first of all
        wins[:, 0] |= (price[:, 0] == 0) & (lowest.gather(1, place[:, :1])[:, 0] == 0)
        if turn == size - 1:
            break
        if device.type == "cpu":  # where looking for the losers costs no wait, only they bid again
            losers = (~wins).view(-1).nonzero().squeeze(1)
            dearer, where = cost.view(-1, places), place.view(-1)[losers]
            dearer[losers, where] += 1
            price.view(-1)[losers], place.view(-1)[losers] = dearer[losers].min(-1)
        else:
            cost.scatter_add_(2, place.unsqueeze(-1), (~wins).to(cost.dtype).unsqueeze(-1))
            price, place = cost.min(-1)
    nobody = torch.full_like(block, -1)
    return nobody.scatter_reduce_(1, place, torch.where(wins, block, -1), "amax")


def move_blocks(images: Tensor, plan: Tensor) -> Tensor:
    """Put the blocks of each image where a `transport_plan` says; a place for which none comes is black (0)."""
    batch, channels, height, width = images.shape
    size = math.isqrt(plan.shape[1])
    blocks = images.reshape(batch, channels, size, height // size, size, width // size).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(batch, size**2, channels, height // size, width // size)
    index = plan.clamp_min(0)[..., None, None, None].expand_as(blocks)
    moved = blocks.gather(1, index) * (plan >= 0)[..., None, None, None].to(images.dtype)
    moved = moved.reshape(batch, size, size, channels, height // size, width // size).permute(0, 3, 1, 4, 2, 5)
    return moved.reshape(images.shape)


def puzzlemix(
    pixels: Tensor,
    saliency: Tensor,
    plan: MixPlan,
    *,
    block_num: int,
    n_labels: int = 3,
    transport: bool = True,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 4,
    t_eps: float = 0.8,
    t_size: int | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    return_mask: bool = False,
) -> tuple[Tensor, MixPlan] | tuple[Tensor, MixPlan, Tensor]:
    """Mix each image with its partner by blocks, keeping what is salient in both (Kim et al., Puzzle Mix, 2020).

    Args:
        pixels: FloatTensor[B, C, S, S]; not changed.
        saliency: FloatTensor[B, S, S], not negative, such as the norm of the loss's gradient. An image without any
            counts as equally salient everywhere.
        plan: partner, and lam as the prior's alpha.
        block_num: g; S must be a multiple.
        n_labels: levels of a block, at least 2.
        transport: move salient blocks of each image to where the mask keeps them.
        beta, gamma, eta, neigh_size: of the energy; see `label_energy`. S / g must be a multiple of the cell
            min(neigh_size, S / g).
        t_eps: see `transport_plan`.
        t_size: side in pixels of the blocks that are moved; None is S / g.
        mean, std: with which pixels were normalised, [C] or anything that broadcasts to [B, C, H, W].
        return_mask: give the mask too.

    Returns:
        the mixed images [B, C, S, S], the plan whose lam is the mean of each mask, and if asked for the mask
        FloatTensor[B, g, g], the share of the image itself.

    Raises:
        ValueError: for images that are not square or not a multiple of the blocks, saliency of another shape, and
            parameters that are not possible.
    """
    size = _checked(pixels, saliency, plan, block_num, n_labels, neigh_size, t_size)
    count = len(plan.partner)
    exact = pixels.float() if pixels.dtype in (torch.float16, torch.bfloat16) else pixels
    saliency = saliency.to(exact.dtype)
    block = size // block_num
    images = exact * _as_channels(std, exact, 1.0) + _as_channels(mean, exact, 0.0)
    energy = label_energy(
        images,
        normalised_saliency(saliency, block),
        plan,
        block_num=block_num,
        n_labels=n_labels,
        beta=beta,
        gamma=gamma,
        eta=eta,
        neigh_size=neigh_size,
    )
    mask = find_levels(energy).to(exact.dtype) / (n_labels - 1)
    own, other = exact[:count], exact[plan.partner]
    if transport:
        side = block if t_size is None else t_size
        coarse = F.interpolate(mask.unsqueeze(1), size=size // side, mode="nearest").squeeze(1)
        salient = normalised_saliency(saliency, side)
        own = move_blocks(own, transport_plan(salient[:count], coarse > 0, t_eps))
        other = move_blocks(other, transport_plan(salient[plan.partner], coarse < 1, t_eps))
    full = mask.repeat_interleave(block, 1).repeat_interleave(block, 2).unsqueeze(1)
    mixed = (full * own + (1 - full) * other).to(pixels.dtype)
    if pixels.is_contiguous(memory_format=torch.channels_last):
        mixed = mixed.contiguous(memory_format=torch.channels_last)
    true_plan = MixPlan(plan.partner, mask.mean((1, 2)).to(plan.lam.dtype))
    return (mixed, true_plan, mask) if return_mask else (mixed, true_plan)


def _as_channels(value: Tensor | None, like: Tensor, default: float) -> Tensor:
    if value is None:
        return torch.full((), default, dtype=like.dtype, device=like.device)
    value = value.to(like.device, like.dtype)
    return value.view(1, -1, 1, 1) if value.dim() == 1 else value


def _checked(
    pixels: Tensor,
    saliency: Tensor,
    plan: MixPlan,
    block_num: int,
    n_labels: int,
    neigh_size: int,
    t_size: int | None,
) -> int:
    if pixels.dim() != 4 or not pixels.is_floating_point() or pixels.shape[-1] != pixels.shape[-2]:
        raise ValueError(
            f"pixels are {pixels.dtype} of shape {tuple(pixels.shape)}: pass floats [B, C, S, S], square images."
        )
    size = pixels.shape[-1]
    if saliency.shape != (len(pixels), size, size):
        raise ValueError(f"saliency of shape {tuple(saliency.shape)}: pass [B, S, S] = {(len(pixels), size, size)}.")
    if len(plan.partner) > len(pixels):
        raise ValueError(f"a plan of {len(plan.partner)} rows does not fit {len(pixels)} images.")
    if n_labels < 2 or neigh_size < 1:
        raise ValueError(f"n_labels={n_labels} and neigh_size={neigh_size}: pass at least 2 and at least 1.")
    if block_num < 2 or size % block_num:
        raise ValueError(f"block_num={block_num} does not divide images of {size} pixels: pass a divisor from 2 up.")
    block = size // block_num
    if block % min(neigh_size, block):
        raise ValueError(f"neigh_size={neigh_size} does not divide blocks of {block} pixels: pass a divisor of it.")
    if t_size is not None and (t_size < 1 or size % t_size):
        raise ValueError(f"t_size={t_size} does not divide images of {size} pixels: pass a divisor of it.")
    return size
