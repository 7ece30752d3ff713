"""What the benchmarks share: rounds in random order, ratios within a round, and records of them.

One round times each kind once, in a new random order; a ratio is the median over the rounds of the ratio within a
round, so that a machine that changes its speed changes both sides.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from hf_logitmix import __version__

FAR = 1.25  # of a goal, which no noise of a machine explains
Ratios = Mapping[str, tuple[str, str, float | None]]  # name: (kind, the kind that it is compared with, goal or None)


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(function: Callable[[], Any]) -> float:
    """What one call takes."""
    wait()
    started = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - started


def measure(
    kinds: Iterable[str], seconds: Callable[[str, int], float], rounds: int, warm_up: int = 3
) -> dict[str, list[float]]:
    """Seconds of each kind, a list with one entry a round; ``seconds`` times one kind in the round of a number."""
    rng = random.Random(0)
    times: dict[str, list[float]] = {}
    names = list(kinds)
    for number in tqdm(range(warm_up + rounds), desc="rounds"):
        rng.shuffle(names)
        for name in names:
            took = seconds(name, number)
            if number >= warm_up:
                times.setdefault(name, []).append(took)
    return times


def memory_of(call: Callable[[], Any]) -> float:
    """The most that a call has allocated at a time, in MB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 1e6


def ratios_of(times: Mapping[str, list[float]], ratios: Ratios) -> dict[str, dict[str, Any]]:
    """Median, quartiles and goal of each ratio."""
    found = {}
    for name, (above, below, goal) in ratios.items():
        each = [a / b for a, b in zip(times[above], times[below], strict=True)]
        low, _, high = statistics.quantiles(each, n=4)
        found[name] = {"median": statistics.median(each), "quartiles": [low, high], "goal": goal}
    return found


def record_of(what: str, times: Mapping[str, list[float]], ratios: Ratios, *packages: str) -> dict[str, Any]:
    """All that a record holds; ``packages`` are those whose versions matter beside hf_logitmix, torch and Python."""
    return {
        "what": what,
        "ratios": ratios_of(times, ratios),
        "median_seconds": {name: statistics.median(values) for name, values in times.items()},
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads",
        "versions": {
            "hf_logitmix": __version__,
            **{name: importlib.metadata.version(name) for name in (*packages, "torch")},
            "python": platform.python_version(),
        },
    }


def save(record: Mapping[str, Any], output: Path) -> int:
    """Write a record, and print its ratios as a table; 1 if one is far outside its goal, as an exit status."""
    output.write_text(json.dumps(record, indent=2) + "\n")
    width = max(map(len, record["ratios"])) + 2
    for name, ratio in record["ratios"].items():
        goal, median, (low, high) = ratio["goal"], ratio["median"], ratio["quartiles"]
        reached = "" if goal is None else f"   goal <= {goal:<5g} {'ok' if median <= goal else 'MISSED'}"
        print(f"{name:<{width}}{median:.3f}  [{low:.3f}, {high:.3f}]{reached}")
    print(f"written to {output}")
    return int(any(r["goal"] is not None and r["median"] > FAR * r["goal"] for r in record["ratios"].values()))
