"""Snapshots against forwards by hand, of texts and images, and training that does not notice them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import default_data_collator

from helpers.data import batch_of, examples, random_images
from helpers.models import tiny_bert, tiny_vit
from helpers.tiny_models import tiny_model
from helpers.training import InOrder, arguments, weights
from hf_logitmix import METHODS
from hf_logitmix.analysis import Bottleneck, Snapshots, look_at, read_snapshots, with_bottleneck
from hf_logitmix.analysis.snapshots import spread
from hf_logitmix.objectives.second_head import SecondHead


def trained(folder, method, model, rows, snapshots=True, draws=(), **options):
    args = arguments(folder, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4, **options)
    trainer = InOrder(model=model, args=args, method=METHODS[method], train_dataset=rows, eval_dataset=rows[:4])
    trainer.data_collator = default_data_collator
    if snapshots:
        trainer.add_callback(Snapshots(trainer, rows[:6], draws))
    trainer.train()
    return trainer


def test_a_snapshot_is_what_the_model_says_at_that_step(tmp_path):
    rows, model = examples(16), tiny_bert()
    trained(tmp_path, "vanilla", model, rows, draws=[rows[6:12], rows[:6]])
    shots = read_snapshots(tmp_path)
    assert [shot.step for shot in shots] == [1, 2, 3]
    last = shots[-1]
    with torch.no_grad():
        model.eval()
        logits = model(**batch_of(rows[:6])).logits
        pooled = model.bert(**batch_of(rows[:6])).pooler_output
        others = model(**batch_of(rows[6:12])).logits
    np.testing.assert_allclose(last.logits, logits, atol=1e-5)
    np.testing.assert_allclose(last.features, pooled, atol=1e-5)
    np.testing.assert_allclose(last.features @ last.weight.T + last.bias, last.logits, atol=1e-5)
    np.testing.assert_allclose(last.draws, torch.stack([others, logits]), atol=1e-5)
    assert last.labels.tolist() == [row["labels"] for row in rows[:6]]
    assert not np.allclose(shots[0].logits, last.logits, atol=1e-4)
    assert last.soft is None
    assert last.embedding is None


@pytest.mark.parametrize("method", ["mixup", "lamix"])
def test_training_does_not_notice_them(tmp_path, method):
    found = []
    for number, snapshots in enumerate((False, True)):
        model = tiny_bert(dropout=0.1)
        torch.manual_seed(0)
        trained(tmp_path / str(number), method, model, examples(16), snapshots)
        found.append(weights(model))
    assert torch.equal(*found)


def test_soft_labels_are_those_of_the_second_head(tmp_path):
    rows, model = random_images(12), tiny_vit()
    trainer = trained(tmp_path, "lamix", model, rows, max_steps=2)
    last = read_snapshots(tmp_path)[-1]
    (head,) = [m for m in trainer.method_in_training.learned.modules() if isinstance(m, SecondHead)]
    pixels = batch_of(rows[:6])["pixel_values"]
    partner = [1, 2, 3, 0, 5, 4]  # the next one of each batch of four
    blends = (pixels + pixels[partner]) / 2
    model.eval()
    with torch.no_grad():
        for shown, soft in ((pixels, last.soft), (blends, last.mixed_soft)):
            features = model.vit(shown).last_hidden_state[:, 0]
            by_hand = F.linear(features, head.linear.weight, head.linear.bias).sigmoid().softmax(-1)
            np.testing.assert_allclose(soft, by_hand, atol=1e-5)
    assert last.partner.tolist() == partner


class Plain(nn.Module):
    """Two layers on images, the last of which is the classifier."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(768, 5), nn.Linear(5, 3)

    def forward(self, pixel_values):
        return self.last(self.first(pixel_values.flatten(1)))


def test_a_bottleneck_shows_its_two_units_and_trains():
    torch.manual_seed(0)
    rows, model = random_images(5), with_bottleneck(Plain(), 3)
    bottleneck = model.last[0]
    assert isinstance(bottleneck, Bottleneck)
    assert [tuple(m.weight.shape) for m in bottleneck if isinstance(m, nn.Linear)] == [(2, 5), (100, 2), (512, 100)]
    batch = {**batch_of(rows), "labels": torch.tensor([0, 1, 2, 0, 1])}
    shot = look_at(model, [batch], 3)
    with torch.no_grad():
        hidden = model.first(batch["pixel_values"].flatten(1))
        units = torch.tanh(F.linear(hidden, bottleneck[0].weight, bottleneck[0].bias))
    np.testing.assert_allclose(shot.embedding, units, atol=1e-6)
    assert shot.features.shape == (5, 512)
    F.cross_entropy(model(batch["pixel_values"]), batch["labels"]).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_what_has_no_snapshots_is_refused(tmp_path):
    rows = examples(8)
    trainer = InOrder(model=tiny_bert(), args=arguments(tmp_path), method="vanilla", train_dataset=rows)
    with pytest.raises(ValueError, match="eval_strategy is 'no': pass 'epoch'"):
        Snapshots(trainer, rows)
    batch = {**batch_of(rows), "labels": torch.rand(8)}
    with pytest.raises(ValueError, match="class ids as their `labels`"):
        look_at(tiny_bert(), [batch], 3)
    with pytest.raises(ValueError, match="no examples to look at"):
        look_at(tiny_bert(), [], 3)
    with pytest.raises(FileNotFoundError, match=r"holds no snapshots: train with --snapshots N"):
        read_snapshots(tmp_path)


def test_a_classifier_of_tokens_is_refused_before_training(tmp_path):
    rows, model = examples(8), tiny_model("gpt2")
    args = arguments(tmp_path, eval_strategy="steps", eval_steps=1)
    rows = [{name: value for name, value in row.items() if name != "token_type_ids"} for row in rows]
    trainer = InOrder(model=model, args=args, method="vanilla", train_dataset=rows, eval_dataset=rows)
    with pytest.raises(ValueError, match=r"classifier reads \(8, 9, 32\), a vector for each token"):
        Snapshots(trainer, rows)


def test_numbers_are_spread_evenly():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 3) == [0, 1, 2]
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"snapshots={count}: pass a number from 1 to 3"):
            spread(3, count)
