"""What a mixing coefficient is drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from scipy.special import betaincinv
from torch import Tensor


class Distribution:
    """A distribution on [0, 1]; a new one overrides `draw`."""

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw FloatTensor[count] on the CPU; without a generator from torch's global one."""
        raise NotImplementedError


@dataclass(frozen=True)
class Beta(Distribution):
    r""":math:`\mathrm{Beta}(\alpha, \alpha)`, symmetric about 1/2.

    Drawn by inversion, :math:`\lambda = I^{-1}_{\alpha,\alpha}(u)` with :math:`u \sim U(0, 1)`, so each number takes
    one from the generator.

    Attributes:
        alpha: both parameters, > 0. 1 is uniform, small values give numbers near 0 or 1.

    Raises:
        ValueError: for any other alpha.
    """

    alpha: float = field(default=1.0, metadata={"help": "lam is drawn from Beta(alpha, alpha)."})

    def __post_init__(self) -> None:
        if not (isinstance(self.alpha, (int, float)) and self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha must be positive and finite, got {self.alpha!r}: lam ~ Beta(alpha, alpha).")

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        source = generator.device if generator is not None else torch.device("cpu")
        uniform = torch.rand(count, generator=generator, device=source, dtype=torch.float64)
        return torch.as_tensor(betaincinv(self.alpha, self.alpha, uniform.cpu().numpy()), dtype=torch.float32)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [0, 1]."""

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return Beta(1.0).draw(count, generator)


@dataclass(frozen=True)
class Constant(Distribution):
    """Always the same number.

    Attributes:
        value: in [0, 1].

    Raises:
        ValueError: for any other value.
    """

    value: float = field(metadata={"option": False})

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(f"value must be in [0, 1], got {self.value}: it is a weight in a mix.")

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.full((count,), float(self.value))


_NAMES = {"uniform": Uniform(), "half": Constant(0.5)}


def as_distribution(given: Distribution | float | str, argument: str) -> Distribution:
    """A distribution from itself, from a number, or from a text: ``uniform``, ``half``, ``beta:ALPHA`` or a number.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(given, Distribution):
        return given
    if isinstance(given, str) and given in _NAMES:
        return _NAMES[given]
    try:
        if isinstance(given, str) and given.startswith("beta:"):
            return Beta(float(given.removeprefix("beta:")))
        return Constant(float(given))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} must be Beta(...), Uniform(), a number in [0, 1], 'uniform', 'half' or 'beta:ALPHA' (such as "
            f"beta:0.5), got {given!r}."
        ) from error
