"""The labels of PuzzleMix: ours, a batch at once, beside graph cuts one image at a time, interleaved in one process.

    pip install gco-wrapper
    python benchmarks/puzzlemix_labels.py

The released code of PuzzleMix finds its labels by alpha-beta swaps of gco, on costs that are rounded to integers; so
does the other side here, on the same energies. Images are the synthetic shapes of hf_logitmix, saliency is random and
smooth. One round solves ten batches in a row with each side, and then one with each after reading 128 MB of other
memory, as between the forward and the backward of a model. Times are of one thread and by its own clock, medians over
the rounds, without making the energies; what is reached is compared with the lower of the two. The result goes to
puzzlemix_labels.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import gco
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from hf_logitmix import __version__
from hf_logitmix.mixing.grid_energy import Energy, find_levels
from hf_logitmix.mixing.puzzlemix import label_energy, normalised_saliency
from hf_logitmix.pairing import sample_plan
from hf_logitmix.vision.shapes import draw_shapes

BATCH, SIZE, IN_A_ROW = 100, 32, 10
KINDS = [(grid, levels) for levels in (2, 3, 4) for grid in (2, 4, 8, 16)]


def energies(grid: int, levels: int, seed: int) -> Energy:
    """Of a batch of mixed images."""
    torch.manual_seed(seed)
    pixels, _ = draw_shapes(BATCH, seed)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    rough = F.interpolate(torch.rand(BATCH, 1, 5, 5) ** 3, SIZE, mode="bicubic").clamp_min(0).squeeze(1)
    plan = sample_plan(BATCH, alpha=1.0)
    saliency = normalised_saliency(rough, SIZE // grid)
    return label_energy(images, saliency, plan, block_num=grid, n_labels=levels)


def graph_cuts(energy: Energy) -> Tensor:
    """Levels by gco, image by image, on costs that are made integers there, as in the released code."""
    scale, levels = 1000 * energy.unary.shape[1] ** 2, energy.unary.shape[-1]
    share = np.arange(levels) / (levels - 1)
    # of integers too: the squares of the levels, with the scale of the shares in the weights
    apart = np.rint(((share[:, None] - share) * (levels - 1)) ** 2).astype(np.int32)
    found = []
    for unary, down, right in zip(*(part.numpy() for part in energy), strict=True):
        weights = [(scale / (levels - 1) ** 2 * part).astype(np.int32) for part in (down, right)]
        found.append(gco.cut_grid_graph((scale * unary).astype(np.int32), apart, *weights, algorithm="swap"))
    return torch.from_numpy(np.stack(found)).reshape(energy.unary.shape[:-1]).long()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds that count")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    other_memory = torch.ones(2**25)
    rows = []
    for grid, levels in tqdm(KINDS):
        seconds: dict[str, list[float]] = {"graph cuts": [], "ours": []}
        alone: dict[str, list[float]] = {"graph cuts": [], "ours": []}
        above: dict[str, list[float]] = {"graph cuts": [], "ours": []}
        worst = 0.0
        for number in range(options.rounds + 1):
            batches = [energies(grid, levels, IN_A_ROW * number + i) for i in range(IN_A_ROW)]
            found = {}
            for name, solve in (("graph cuts", graph_cuts), ("ours", find_levels)):
                started = time.thread_time()
                found[name] = [solve(energy) for energy in batches]
                if number:  # the first round warms up
                    seconds[name].append((time.thread_time() - started) / IN_A_ROW)
            for name, solve in (("graph cuts", graph_cuts), ("ours", find_levels)):
                other_memory.sum()
                started = time.thread_time()
                solve(batches[0])
                if number:
                    alone[name].append(time.thread_time() - started)
            for place, energy in enumerate(batches):
                values = {name: energy.of(levels_[place]) for name, levels_ in found.items()}
                best = torch.minimum(*values.values())
                for name, value in values.items():
                    above[name].append(((value - best) / best.abs()).mean().item())
                worst = max(worst, ((values["ours"] - best) / best.abs()).max().item())
        row = {"grid": grid, "levels": levels}
        for name in seconds:
            row[f"{name}, ms"] = 1000 * statistics.median(seconds[name])
            row[f"{name}, above the lower energy"] = statistics.fmean(above[name])
        row["ours, above the lower energy, worst image"] = worst
        for name, times in (("ratio", seconds), ("ratio, one batch between other work", alone)):
            row[name] = statistics.median(o / g for g, o in zip(times["graph cuts"], times["ours"], strict=True))
        rows.append(row)
        tqdm.write(
            f"{grid:>2} x {grid:<2} blocks, {levels} levels: graph cuts {row['graph cuts, ms']:6.2f} ms, "
            f"ours {row['ours, ms']:5.2f} ms, ratio {row['ratio']:.3f}, "
            f"of one batch {row['ratio, one batch between other work']:.3f}, worst image {100 * worst:.2f}%"
        )
    record = {
        "what": f"labels for {BATCH} synthetic images of {SIZE} pixels, {options.rounds} rounds of {IN_A_ROW}, medians",
        "rows": rows,
        "versions": {"hf_logitmix": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": f"cpu, {torch.get_num_threads()} thread",
    }
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
