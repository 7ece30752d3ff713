"""How batches are made and handed out: by length, by a size that fits, cut up between processes."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import default_data_collator

from helpers.data import data_without_types, examples
from helpers.models import tiny_bert
from helpers.training import InOrder, Ordered, arguments, collate_pairs, weights
from hf_logitmix import MixCollator, MixTrainer


class Noting(MixTrainer):
    """Writes down which examples come, in their order."""

    def _take_labels(self, inputs):
        self.seen = [*getattr(self, "seen", []), *inputs["input_ids"].tolist()]
        return super()._take_labels(inputs)


@pytest.mark.parametrize("method", ["vanilla", "logitmix"])
def test_grouping_by_length_only_changes_the_order(tmp_path, method):
    """The same examples in the order in which they came, without grouping, give the same weights."""
    data = data_without_types(32)
    cut = [row["input_ids"][: int(row["attention_mask"].sum())].tolist() for row in data]
    unpadded = Dataset.from_dict({"input_ids": cut, "labels": [row["labels"] for row in data]})

    def collate(features):
        return collate_pairs([by_ids[tuple(row["input_ids"])] for row in features])

    by_ids = {tuple(ids): row for ids, row in zip(cut, data, strict=True)}
    grouped = Noting(
        model=tiny_bert(),
        args=arguments(tmp_path, train_sampling_strategy="group_by_length", max_steps=4),
        method=method,
        train_dataset=unpadded,
        data_collator=collate,
    )
    grouped.train()
    lengths = [sum(token != 0 for token in ids) for ids in grouped.seen]
    assert sorted(lengths) == sorted(len(row) for row in unpadded["input_ids"])
    assert all(lengths[i : i + 8] == sorted(lengths[i : i + 8], reverse=True) for i in range(0, 32, 8))
    rows = {tuple(row["input_ids"].tolist()): row for row in data}
    plain = InOrder(
        model=tiny_bert(),
        args=arguments(tmp_path, max_steps=4),
        method=method,
        train_dataset=[rows[tuple(ids)] for ids in grouped.seen],
        data_collator=collate_pairs,
    )
    plain.train()
    assert torch.equal(weights(grouped.model), weights(plain.model))


def test_predictions_come_in_the_order_of_the_dataset(tmp_path):
    """Trainer groups by length in evaluation too, and then gives the logits in another order."""
    texts = [torch.randint(3, 60, (3 + 4 * i % 7,)).tolist() for i in range(12)]
    data = Dataset.from_dict({"input_ids": texts, "labels": [i % 3 for i in range(12)]})

    def collate(rows):
        ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    model = tiny_bert().eval()
    args = arguments(tmp_path, train_sampling_strategy="group_by_length", per_device_eval_batch_size=4)
    found = MixTrainer(model, args, train_dataset=data, data_collator=collate).predict(data)
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([ids])).logits for ids in texts])
    torch.testing.assert_close(torch.from_numpy(found.predictions), alone, atol=1e-5, rtol=1e-5)
    assert found.label_ids.tolist() == data["labels"][:]


class Small(MixTrainer):
    """A device on which six rows, clean and mixed, are too many."""

    tried: tuple = ()

    def compute_loss(self, model, inputs, *args, **kwargs):
        size = len(inputs["labels"])
        self.tried = (*self.tried, size)
        rows = []
        handle = self.model.bert.embeddings.register_forward_pre_hook(
            lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        try:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            handle.remove()
        if max(rows) > 6:
            raise RuntimeError("CUDA out of memory.")
        return loss


class SmallInOrder(Ordered, Small):
    pass


@pytest.mark.parametrize(
    ("method", "fits"),
    [("logitmix", 3), ("vanilla", 6), ("sg_mcel", 6), ("lamix", 6)],
)
@pytest.mark.slow
def test_a_batch_size_that_fits_is_found_for_all_rows_of_a_step(tmp_path, method, fits):
    """LogitMix runs two rows an example; what failed before leaves no trace in the result."""
    data = data_without_types(16)
    trainers = [
        cls(
            model=tiny_bert(),
            args=arguments(tmp_path, max_steps=4, per_device_train_batch_size=size, auto_find_batch_size=True),
            method=method,
            train_dataset=data,
            data_collator=collate_pairs,
        )
        for cls, size in ((SmallInOrder, 8), (InOrder, fits))
    ]
    for trainer in trainers:
        torch.manual_seed(0)
        trainer.train()
    assert trainers[0].tried[0] == 8
    assert trainers[0]._train_batch_size == max(trainers[0].tried[-4:]) == fits
    if method != "lamix":  # whose second head is drawn anew
        torch.testing.assert_close(weights(trainers[0].model), weights(trainers[1].model), atol=1e-6, rtol=1e-5)
    assert not trainers[0].model.bert.embeddings.word_embeddings._forward_hooks


@pytest.mark.parametrize("option", ["split_batches", "dispatch_batches"])
def test_partners_chosen_before_a_batch_is_cut_up_are_refused(tmp_path, option):
    args = arguments(tmp_path, accelerator_config={option: True})
    with pytest.raises(ValueError, match=f"{option}.*no longer fit.*MixCollator"):
        MixTrainer(model=tiny_bert(), args=args, data_collator=MixCollator(default_data_collator))
    trainer = MixTrainer(model=tiny_bert(), args=args, train_dataset=examples(16), data_collator=collate_pairs)
    with pytest.raises(ValueError, match=f"{option}.*no longer fit"):
        trainer.train()
    MixTrainer(model=tiny_bert(), args=args, train_dataset=examples(16)).train()  # draws the plan of each part itself
