"""Records of runs whose logits are made up."""

from __future__ import annotations

import json

import numpy as np

from hf_logitmix.metrics import calibration_metrics, scaled_metrics

N = 300
LABELS = np.random.default_rng(0).integers(2, size=N)
SHARED = {"task": "sst2", "data": "GLUE", "model": "m", "n_train": 100, "n_eval": N}


def write(folder, method, seed, *, sharpness=1.0, skill=1.0, logits=True, words="", **changes):
    """A record with figures of made-up logits: of one draw a seed, whatever the method."""
    z = sharpness * (np.random.default_rng(seed).normal(size=(N, 2)) + skill * np.eye(2)[LABELS])
    found = {**calibration_metrics(z, LABELS), **scaled_metrics(z, LABELS, 10)}
    run = {**SHARED, "method_name": method, "seed": seed, **{f"eval_{name}": v for name, v in found.items()}}
    run |= {
        "train_seconds": 10.0 * (1 + (method != "vanilla")),
        "command": f"hf-logitmix glue --method {method} {words}",
    }
    name = f"{method}{words}-{seed}".replace(" ", "_").replace("/", "_")
    (folder / f"{name}.json").write_text(json.dumps({**run, **changes}))
    if logits:
        np.savez(folder / f"{name}.npz", logits=z, labels=LABELS)
    return z, LABELS
