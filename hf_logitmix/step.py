"""Where in training a step stands: all that a schedule may depend on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Step:
    """One optimizer step of a training run, and which of its micro-batches is at hand.

    What is random in mixing is a function of the fields alone: an evaluation in between, another use of torch's
    generators or a resumed run changes none of it. A choice that belongs to the step is drawn from `uniform`, the same
    for all its micro-batches on all processes; what belongs to one batch (partners, lam, boxes) from `generator`, which
    is another one for each micro-batch and each process.

    Attributes:
        index: optimizer steps done so far.
        max_steps: optimizer steps of the whole run.
        seed: the seed of the run.
        micro_batch: number of the micro-batch in an accumulated step, from 0.
        rank: number of the process, from 0.
    """

    index: int
    max_steps: int
    seed: int = 0
    micro_batch: int = 0
    rank: int = 0

    @property
    def progress(self) -> float:
        """The share of training that is done, in [0, 1)."""
        return self.index / max(self.max_steps, 1)

    def uniform(self, purpose: str) -> float:
        """A number in [0, 1), the same whenever it is asked for at this step of a run with this seed.

        ``purpose`` names what it is for, so that two choices of one step are independent.
        """
        return _hash(f"{self.seed} {self.index} {purpose}") / 2**48

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU for what is drawn for one micro-batch on one process; ``purpose`` as in `uniform`."""
        seed = _hash(f"{self.seed} {self.index} {self.micro_batch} {self.rank} {purpose}")
        return torch.Generator().manual_seed(seed)


class OutsideTraining(Step):
    """A step of no run: what is random comes from torch's global generator on the CPU."""

    def __init__(self) -> None:
        super().__init__(index=0, max_steps=0)

    def uniform(self, purpose: str) -> float:
        return torch.rand(()).item()

    def generator(self, purpose: str) -> torch.Generator:
        return torch.default_generator


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")
