"""What a record says of the machine that a run was on."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def device_name(device: torch.device) -> str:
    """Of a GPU its name, of a CPU the number of threads, of anything else what torch calls its kind."""
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> float | None:
    """MiB: of a GPU what torch has held at most, else what the process has; None on Windows, which does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if resource is None:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
