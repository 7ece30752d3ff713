"""Snapshots of whole runs, as the commands that train keep them."""

import json

import numpy as np
import pytest
import torch

from helpers.glue import small_run
from helpers.image_runs import argv, read_pictures, write_pictures
from hf_logitmix.analysis import read_snapshots
from hf_logitmix.commands import figure
from hf_logitmix.glue import run as glue
from hf_logitmix.vision import train as images


@pytest.mark.slow
def test_a_run_on_images_keeps_training_images_as_they_are_and_augmented(tmp_path):
    data = write_pictures(tmp_path / "pictures", 3, 8, 4, 16)
    output = tmp_path / "out"
    words = ["--method", "lamix", "--snapshots", "6", "--snapshot_draws", "3", "--num_train_epochs", "2"]
    assert images.main(argv(data, output, *words)) == 0
    shots = read_snapshots(output)
    assert [shot.step for shot in shots] == [3, 6]
    _, labels = read_pictures(data, "train")
    chosen = [round(n * 23 / 5) for n in range(6)]
    assert shots[0].labels.tolist() == labels[chosen].tolist()
    last = shots[-1]
    np.testing.assert_allclose(last.features @ last.weight.T + last.bias, last.logits, atol=1e-4)
    assert last.draws.shape == (3, 6, 3)
    assert all(not np.allclose(draw, last.logits, atol=1e-4) for draw in last.draws)  # padded, cropped and flipped
    assert not np.allclose(last.draws[0], last.draws[1], atol=1e-4)
    again = images.main(argv(data, tmp_path / "same", "--method", "lamix", "--num_train_epochs", "2"))
    assert again == 0
    found = [json.loads((folder / "all_results.json").read_text()) for folder in (output, tmp_path / "same")]
    assert found[0]["eval_nll"] == found[1]["eval_nll"]  # training did not notice
    assert found[0]["settings"] == found[1]["settings"]
    for name in ("soft_targets", "information"):
        assert figure.main([name, str(output), "--classes", "0", "1", "--output", str(tmp_path / "x.png")]) == 0


@pytest.mark.slow
def test_a_run_on_texts_keeps_training_texts(tmp_path):
    words = ["--output_dir", str(tmp_path / "out"), "--method", "vanilla", "--eval_strategy", "epoch"]
    assert glue.main([*small_run(tmp_path), *words, "--snapshots", "5"]) == 0
    last = read_snapshots(tmp_path / "out")[-1]
    assert last.labels.tolist() == [n % 2 for n in (0, 25, 50, 74, 99)]
    assert last.features.shape == (5, 16)
    assert last.draws is None
    assert torch.isfinite(torch.from_numpy(last.logits)).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--snapshots", "25"], "snapshots=25: pass a number from 1 to 24"),
        (["--snapshots", "6", "--eval_strategy", "no"], "eval_strategy is 'no': pass 'epoch'"),
        (["--snapshot_draws", "3"], "snapshot_draws=3 are of snapshots: pass --snapshots too"),
    ],
)
def test_snapshots_that_cannot_be_kept_are_refused_before_training(tmp_path, words, says):
    data = write_pictures(tmp_path / "pictures", 3, 8, 4, 16)
    with pytest.raises(ValueError, match=says):
        images.main(argv(data, tmp_path / "out", *words))
    assert not (tmp_path / "out" / "model.safetensors").exists()
