"""What runs command lines: this machine, several at a time, or a Ray cluster. Neither schedules anything of its own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

logger = logging.getLogger(__name__)

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
    that they save and stop, and after SIGTERM, which is handed on to them as Ctrl-C, no more of them are started: their
    status is 130. Where none was left to start, a KeyboardInterrupt follows the last one.

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
        for environment in _environments(self.jobs):
            places.put(environment)
        stop, running = threading.Event(), set[subprocess.Popen]()

        def run(job: Job) -> int:
            if stop.is_set():
                return STOPPED[0]
            place = places.get()
            try:
                status = run_logged(job, place, running)
            finally:
                places.put(place)
            if status in STOPPED:
                stop.set()
            return status

        with _stopped_by_signals(stop, running), ThreadPoolExecutor(self.jobs) as pool:
            numbers = {pool.submit(run, job): number for number, job in enumerate(jobs)}
            try:
                is_told = False
                for ended in as_completed(numbers):
                    is_told |= ended.result() in STOPPED
                    yield numbers[ended], ended.result()
                if stop.is_set() and not is_told:
                    raise KeyboardInterrupt
            finally:
                stop.set()  # after an error here too


@dataclass(frozen=True)
class Ray:
    """Runs as tasks of a Ray cluster that is there (``RAY_ADDRESS``), or of one that is started on this machine.

    Call it as `Local`. The workers need this environment and these folders under these paths, as on a cluster with one
    file system; each run has a GPU where the cluster has any. A run whose worker is lost has failed.

    Attributes:
        jobs: how many at a time, which share the cores of the cluster; a run has those of one machine at most.

    Raises:
        ValueError: for fewer than one, and without Ray.
    """

    jobs: int = 1

    def __post_init__(self) -> None:
        _check(self.jobs)
        if find_spec("ray") is None:
            raise ValueError('engine=ray needs Ray: pip install "hf_logitmix[ray]".')

    def __call__(self, jobs: Sequence[Job]) -> Iterator[tuple[int, int]]:
        if not jobs:
            return
        import ray

        ray.init(log_to_driver=False)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        share: dict[str, Any] = {
            "num_cpus": max(1, min(max(cores), sum(cores) // self.jobs)),
            "num_gpus": int(any(node.get("GPU", 0) >= 1 for node in nodes)),
        }
        run = ray.remote(**share, max_retries=0)(run_logged)
        environment, here = {"OMP_NUM_THREADS": str(share["num_cpus"])}, Path.cwd()
        waiting = list(enumerate(jobs))
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    number, job = waiting.pop(0)
                    running[run.remote(job, environment, folder=here)] = number
                (ended,), _ = ray.wait(list(running))
                number = running.pop(ended)
                try:
                    status = ray.get(ended)
                except ray.exceptions.RayError as error:
                    jobs[number].log.parent.mkdir(parents=True, exist_ok=True)
                    with jobs[number].log.open("a", encoding="utf-8") as log:
                        log.write(f"Ray lost this run: {error}\n")
                    status = 1
                yield number, status
        except KeyboardInterrupt:
            for task in running:
                ray.cancel(task)  # a KeyboardInterrupt in `run_logged`
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=60)
            yield from ((number, STOPPED[0]) for number in [*running.values(), *(number for number, _ in waiting)])
        finally:
            ray.shutdown()


def run_logged(
    job: Job,
    environment: Mapping[str, str],
    running: set[subprocess.Popen] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a command to its end, with what it prints in the file of the job, behind what is there; its exit status.

    Ctrl-C reaches the command once, and it is waited for.

    Args:
        job: the command and its log.
        environment: variables beside those that are set.
        running: holds the process while it runs.
        folder: where it runs, and what its paths begin at; None for the current one.
    """
    path = (folder or Path.cwd()) / job.log
    path.parent.mkdir(parents=True, exist_ok=True)
    running = set() if running is None else running
    with path.open("a", encoding="utf-8") as log:
        told = {"env": {**os.environ, **environment}, "cwd": folder, "stdout": log, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(job.command, **told)  # type: ignore[call-overload]
        running.add(process)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            return process.wait()
        finally:
            running.discard(process)


def _check(jobs: int) -> None:
    if jobs < 1:
        raise ValueError(f"jobs={jobs}: pass at least 1.")


def _environments(jobs: int) -> list[dict[str, str]]:
    """Of each of so many runs side by side; what a user has set is left alone."""
    shared = {}
    if "OMP_NUM_THREADS" not in os.environ and jobs > 1:
        shared["OMP_NUM_THREADS"] = str(max(1, _cores() // jobs))
    if not (count := torch.cuda.device_count()):
        return [shared] * jobs
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    if jobs > len(visible):
        logger.warning("jobs=%d on %d GPUs: some runs share one.", jobs, len(visible))
    return [{**shared, "CUDA_VISIBLE_DEVICES": visible[number % len(visible)]} for number in range(jobs)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _stopped_by_signals(stop: threading.Event, running: set[subprocess.Popen]) -> Iterator[None]:
    """A block that Ctrl-C and SIGTERM do not end: the runs save and are waited for, and no other is started."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: Any) -> None:
        stop.set()
        for process in list(running) if number == signal.SIGTERM else ():  # Ctrl-C reaches them from the terminal
            process.send_signal(signal.SIGINT)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
