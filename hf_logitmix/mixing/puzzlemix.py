"""PuzzleMix: mixed images that keep what is salient in both, as pure functions of tensors.

Kim, Choo, Song, Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup, ICML 2020. The energy, its
defaults and the transport are those of the released code; the labels are found here for a whole batch at once, on any
device and without a graph-cut library.

Notation: an image of S x S pixels is cut into g x g blocks. A level k in 0..n-1 says that a block keeps the share
m = k / (n - 1) of the image itself (image 1) and takes the rest from its partner (image 2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.mixing.grid_energy import Energy, find_levels
from hf_logitmix.pairing.plan import MixPlan

_DENSE_ENTRIES = 2**24  # of transport costs that are held at once


def block_mean(values: Tensor, size: int) -> Tensor:
    """The mean over blocks of size x size, [B, C, S, S] to [B, C, S/size, S/size]."""
    return F.avg_pool2d(values, size)


def normalised_saliency(saliency: Tensor, size: int) -> Tensor:
    """Saliency of blocks, which sums to 1 over an image; even where an image has none, or none finite. [B, g, g]."""
    blocks = block_mean(saliency.unsqueeze(1), size).squeeze(1)
    total = blocks.sum((1, 2), keepdim=True)
    even = torch.full_like(blocks, 1 / blocks[0].numel())
    return torch.where((total > 0) & total.isfinite(), blocks / total.clamp_min(torch.finfo(blocks.dtype).tiny), even)


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
    partner, alpha = plan.partner, plan.lam
    block = images.shape[-1] // block_num
    cell = min(neigh_size, block)
    per_block = block // cell
    first = block_mean(images, cell)
    pictures = {1: first[: len(partner)], 2: first[partner]}

    def touching(a: int, b: int, axis: int) -> Tensor:
        one, other = (pictures[number].movedim(axis, -1) for number in (a, b))
        apart = (one[..., per_block - 1 : -1 : per_block] - other[..., per_block::per_block]).abs().mean(1)
        return apart.unflatten(1, (block_num, per_block)).mean(2).movedim(-1, axis - 1)

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
    wished = wanted.to(saliency.dtype).reshape(batch, 1, places)
    cost = torch.addcmul((t_eps * distance).expand(batch, -1, -1), saliency.reshape(batch, places, 1), wished, value=-1)
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
        if device.type == "cpu":  # where looking for the losers costs no wait, only those bid again that may yet win
            losers = (~wins & ((price < 0) | ((block == 0) & (price == 0)))).view(-1).nonzero().squeeze(1)
            if not len(losers):
                break
            dearer, where = cost.view(-1, places), place.view(-1)[losers]
            dearer[losers, where] += 1
            price.view(-1)[losers], place.view(-1)[losers] = dearer[losers].min(-1)
        else:
            cost.scatter_add_(2, place.unsqueeze(-1), (~wins).to(cost.dtype).unsqueeze(-1))
            price, place = cost.min(-1)
    nobody = torch.full_like(block, -1)
    return nobody.scatter_reduce_(1, place, torch.where(wins, block, -1), "amax")


def mix_moved(images: Tensor, partner: Tensor, share: Tensor, own_plan: Tensor, other_plan: Tensor) -> Tensor:
    """The sum of each image and its partner by ``share``, after the blocks of both were moved by a `transport_plan`.

    Args:
        images: FloatTensor[B, C, S, S].
        partner: LongTensor[M].
        share: of the image itself, FloatTensor[M, t, t].
        own_plan, other_plan: for the blocks of the image and of its partner, LongTensor[M, t * t]; a place for which no
            block comes is black (0).
    """
    batch, channels, side, _ = images.shape
    count, size = share.shape[:2]
    block = side // size
    blocks = images.reshape(batch, channels, size, block, size, block).permute(0, 2, 4, 1, 3, 5)
    blocks = blocks.reshape(batch * size**2, -1)

    def moved(rows: Tensor, plan: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        found = blocks.index_select(0, (rows[:, None] * size**2 + plan.clamp_min(0)).flatten())
        return found, (weight.flatten() * (plan.flatten() >= 0)).unsqueeze(1)

    own, own_weight = moved(torch.arange(count, device=images.device), own_plan, share)
    other, other_weight = moved(partner, other_plan, 1 - share)
    mixed = own.mul_(own_weight).addcmul_(other, other_weight)
    mixed = mixed.reshape(count, size, size, channels, block, block).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(count, channels, side, side)


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
        saliency: FloatTensor[B, S, S], not negative, such as the norm of the loss's gradient. An image without any, or
            with NaN or infinity in it, counts as equally salient everywhere.
        plan: partner, and lam as the prior's alpha.
        block_num: g; S must be a multiple.
        n_labels: levels of a block, at least 2.
        transport: move salient blocks of each image to where the mask keeps them.
        beta, gamma, eta, neigh_size: of the energy; see `label_energy`. S / g must be a multiple of the cell
            min(neigh_size, S / g).
        t_eps: see `transport_plan`.
        t_size: side in pixels of the blocks that are moved, at most S / g, of which it must be a divisor; a larger one
            counts as S / g, as in the released code. None is S / g.
        mean, std: with which pixels were normalised, [C] or anything that broadcasts to [B, C, H, W].
        return_mask: give the mask too.

    Returns:
        the mixed images [B, C, S, S], the plan whose lam is the mean of each mask, and if asked for the mask
        FloatTensor[B, g, g], the share of the image itself.

    Raises:
        ValueError: for images that are not square or not a multiple of the blocks, saliency of another shape, and
            parameters that are not possible.
    """
    size = _checked(pixels, saliency, plan, block_num, n_labels, neigh_size)
    count = len(plan.partner)
    exact = pixels.float() if pixels.dtype in (torch.float16, torch.bfloat16) else pixels
    saliency = saliency.to(exact.dtype)
    block = size // block_num
    images = exact if std is None else exact * _as_channels(std, exact)
    images = images if mean is None else images + _as_channels(mean, exact)
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
    if transport:
        side = side_of_moved(t_size, block)
        share = mask.repeat_interleave(block // side, 1).repeat_interleave(block // side, 2)
        salient = normalised_saliency(saliency, side)
        plans = (
            transport_plan(salient[:count], share > 0, t_eps),
            transport_plan(salient[plan.partner], share < 1, t_eps),
        )
        mixed = mix_moved(exact, plan.partner, share, *plans)
    else:
        cut = (count, -1, block_num, block, block_num, block)
        mixed = exact.index_select(0, plan.partner).reshape(cut)
        mixed = mixed.lerp_(exact[:count].reshape(cut), mask[:, None, :, None, :, None]).reshape(
            count, *exact.shape[1:]
        )
    mixed = mixed.to(pixels.dtype)
    if pixels.is_contiguous(memory_format=torch.channels_last):
        mixed = mixed.contiguous(memory_format=torch.channels_last)
    true_plan = plan._replace(lam=mask.mean((1, 2)).to(plan.lam.dtype))
    return (mixed, true_plan, mask) if return_mask else (mixed, true_plan)


def side_of_moved(t_size: int | None, block: int) -> int:
    """The side of the blocks that are moved, for a mask of blocks of ``block`` pixels.

    Raises:
        ValueError: for a t_size that would cut across blocks of the mask.
    """
    side = block if t_size is None else min(t_size, block)
    if side < 1 or block % side:
        raise ValueError(f"t_size={t_size} does not divide blocks of {block} pixels: pass a divisor of it, or None.")
    return side


def _as_channels(value: Tensor, like: Tensor) -> Tensor:
    value = value.to(like.device, like.dtype)
    return value.view(1, -1, 1, 1) if value.dim() == 1 else value


def _checked(
    pixels: Tensor,
    saliency: Tensor,
    plan: MixPlan,
    block_num: int,
    n_labels: int,
    neigh_size: int,
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
    return size
