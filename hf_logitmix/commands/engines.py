"""What runs command lines: this machine, several at a time, or a Ray cluster. Neither schedules anything of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

STOPPED = (130, -signal.SIGINT)  # the exit status of a run that Ctrl-C ended


class Job(NamedTuple):
    """A command line, and the file that takes what it prints."""

    command: list[str]
    log: Path


Engine = Callable[[Sequence[Job]], Iterator[tuple[int, int]]]


@dataclass(frozen=True)
class Local:
    """Runs on this machine, some side by side: each with its share of the cores, and with one GPU where there are any.

    Call it with jobs: yields (number of the job, exit status) as they end. After Ctrl-C, which reaches the runs too so
    that they save and stop, no more of them are started.

    Attributes:
        jobs: how many at a time.

    Raises:
        ValueError: for fewer than one.
    """

    jobs: int = 1

    def __post_init__(self) -> None:
        _check(self.jobs)

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, int]]:
        places: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for number in range(self.jobs):
            places.put(_environment(number, self.jobs))
        interrupted = threading.Event()

        def run(job: Job) -> int | None:
            if interrupted.is_set():
                return None
            place = places.get()
            status = run_logged(job, place)
            places.put(place)
            if status in STOPPED:
                interrupted.set()
            return status

        with _ctrl_c_sets(interrupted), ThreadPoolExecutor(self.jobs) as pool:
            numbers = {pool.submit(run, job): number for number, job in enumerate(jobs)}
            for ended in as_completed(numbers):
                if (status := ended.result()) is not None:
                    yield numbers[ended], status


@dataclass(frozen=True)
class Ray:
    """Runs as tasks of a Ray cluster that is there (``RAY_ADDRESS``), or of one that is started on this machine.

    Call it as `Local`. The workers need this environment and these folders, as on a cluster with one file system; each
    run has a GPU where the cluster has any.

    Attributes:
        jobs: how many at a time, which share the cores of the cluster.

    Raises:
        ValueError: for fewer than one.
        ImportError: when it is called without Ray.
    """

    jobs: int = 1

    def __post_init__(self) -> None:
        _check(self.jobs)

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, int]]:
        try:
            import ray
        except ImportError as error:
            raise ImportError('engine=ray needs Ray: pip install "hf_logitmix[ray]".') from error
        ray.init(log_to_driver=False)
        there: Mapping[str, Any] = ray.cluster_resources()
        share = {"num_cpus": max(1, int(there["CPU"]) // self.jobs), "num_gpus": int(there.get("GPU", 0) >= 1)}
        run = ray.remote(**share, max_retries=0)(run_logged)
        waiting, running = list(enumerate(jobs)), {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    number, job = waiting.pop(0)
                    running[run.remote(job, {"OMP_NUM_THREADS": str(share["num_cpus"])})] = number
                (ended,), _ = ray.wait(list(running))
                yield running.pop(ended), ray.get(ended)
        except KeyboardInterrupt:
            for task in running:
                ray.cancel(task)  # a KeyboardInterrupt in `run_logged`
            ray.wait(list(running), num_returns=len(running), timeout=60)
            yield from ((number, STOPPED[0]) for number in running.values())
        finally:
            ray.shutdown()


def run_logged(job: Job, environment: Mapping[str, str]) -> int:
    """Run a command to its end, with what it prints in the file of the job, behind what is there; its exit status.

    Ctrl-C reaches the command once, and it is waited for.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        own = {**os.environ, **environment}
        process = subprocess.Popen(job.command, env=own, stdout=log, stderr=subprocess.STDOUT)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            return process.wait()


def _check(jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: pass at least 1.")


def _environment(number: int, jobs: int) -> dict[str, str]:
    """Of the number-th of so many runs side by side; what a user has set is left alone."""
    found = {}
    if "OMP_NUM_THREADS" not in os.environ and jobs > 1:
        found["OMP_NUM_THREADS"] = str(max(1, _cores() // jobs))
    if count := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        found["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _ctrl_c_sets(event: threading.Event) -> Iterator[None]:
    """A block that Ctrl-C does not end: the runs, which get it from the terminal too, are waited for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: event.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
