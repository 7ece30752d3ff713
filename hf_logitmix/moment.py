"""Where in training a step stands: all that a schedule may depend on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """One optimizer step of a training run.

    Everything random that belongs to a step (and not to a batch) is drawn from ``uniform``, a function of seed and
    step alone. So all micro-batches of an accumulated step, all ranks, and a resumed run see the same draw.

    Attributes:
        step: optimizer steps done so far.
        max_steps: optimizer steps of the whole run.
        seed: the seed of the run.
    """

    step: int
    max_steps: int
    seed: int = 0

    @property
    def progress(self) -> float:
        """The share of training that is done, in [0, 1)."""
        return self.step / max(self.max_steps, 1)

    def uniform(self, purpose: str) -> float:
        """A number in [0, 1), the same whenever it is asked for at this step of a run with this seed.

        ``purpose`` names what it is for, so that two choices of one step are independent.
        """
        key = f"{self.seed} {self.step} {purpose}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") / 2**48
