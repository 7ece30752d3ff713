"""Optimizer steps: what is logged of them, what they are drawn from, and what a second run prepares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from helpers.data import data_without_types
from helpers.models import tiny_bert
from helpers.training import InOrder, arguments, collate_pairs, loss_by_hand, weights
from hf_logitmix import Method, MixTrainer, MixTrainingArguments
from hf_logitmix.mixing import Linear
from hf_logitmix.objectives import Mixed
from hf_logitmix.step import Step
from hf_logitmix.targets import SGMCEL


def log_of(trainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_logged_terms_add_up_where_steps_have_unequal_numbers_of_micro_batches(tmp_path):
    """22 examples are four batches of 4 in one step, and 4 and 2 in the next; one line of the log spans both."""
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "logging_steps": 2, "max_steps": 2}
    trainer = InOrder(
        tiny_bert(),
        arguments(tmp_path, **options, learning_rate=0.0),
        collate_pairs,
        data_without_types(22),
        method="logitmix",
    )
    trainer.train()
    (entry,) = log_of(trainer)
    rows = data_without_types(22)
    steps = [
        sum(len(part) * loss_by_hand("logitmix", tiny_bert(), part).item() for part in parts) / sum(map(len, parts))
        for parts in ([rows[i : i + 4] for i in range(0, 16, 4)], [rows[16:20], rows[20:]])
    ]
    assert entry["loss"] == pytest.approx(np.mean(steps), abs=5e-5)
    assert entry["mix"] + entry["cls"] + entry["sim"] == pytest.approx(entry["loss"], abs=5e-5)


def test_the_share_of_clipped_steps_is_that_of_norms_above_the_limit(tmp_path):
    """The norms are those that Trainer itself logs, one line a step, before it clips."""

    def train(**options):
        options = {"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 0.02, **options}
        trainer = InOrder(
            tiny_bert(), arguments(tmp_path, **options), collate_pairs, data_without_types(24), method="logitmix"
        )
        return log_of(trainer), trainer.train().metrics, log_of(trainer)

    _, _, single = train(max_grad_norm=8.0)
    above = [entry["grad_norm"] > 8.0 for entry in single]
    assert 0 < sum(above) < 6
    assert [entry["grad_clipped"] for entry in single] == above
    _, metrics, pairs = train(max_grad_norm=8.0, logging_steps=2)
    assert [entry["grad_clipped"] for entry in pairs] == [np.mean(above[i : i + 2]) for i in (0, 2, 4)]
    assert metrics["train_grad_clipped"] == pytest.approx(np.mean(above))
    _, metrics, free = train(max_grad_norm=0.0)
    assert not any("grad_clipped" in entry for entry in [*free, metrics])


class Stream(IterableDataset):
    """Ends after its rows; the next epoch begins with the first again."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize("method", ["logitmix", "learns"])
def test_a_stream_that_ends_inside_an_accumulated_step_goes_on_in_its_next_epoch(tmp_path, method):
    """Five batches an epoch, two in a step: the third step has the fifth batch and the first of the next epoch."""
    if method == "learns":  # what is learned beside the model shares in each step too
        method = Method(Linear(), Mixed(), SGMCEL(class_similarity=(torch.ones(3, 3) - torch.eye(3)) / 2))
    rows = data_without_types(20)
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 5}
    streamed = MixTrainer(tiny_bert(), arguments(tmp_path, **options), collate_pairs, Stream(rows), method=method)
    whole = InOrder(tiny_bert(), arguments(tmp_path, **options), collate_pairs, [*rows, *rows], method=method)
    for trainer in (streamed, whole):  # 40 examples are five full steps
        trainer.train()
    for one, other in zip(log_of(streamed), log_of(whole), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-5)
    torch.testing.assert_close(weights(streamed.model), weights(whole.model), atol=2e-5, rtol=0)
    for one, other in zip(streamed._extras.parameters(), whole._extras.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_stream_that_never_fills_a_step_is_an_error(tmp_path):
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    trainer = MixTrainer(tiny_bert(), arguments(tmp_path, **options), None, Stream(data_without_types(8)))
    with pytest.raises(ValueError, match=r"2 batches, .*gradient_accumulation_steps=4"):
        trainer.train()


# ---- what is drawn -------------------------------------------------------------------------------------------------


def draws(step: Step, purpose: str = "plan") -> list[float]:
    return torch.rand(4, generator=step.generator(purpose)).tolist()


def test_batches_are_drawn_from_their_place_in_training_alone():
    here = Step(index=3, max_steps=10, seed=1, micro_batch=1, rank=0)
    torch.manual_seed(0)
    again = draws(here)
    torch.manual_seed(1)
    assert draws(Step(3, 20, 1, 1, 0)) == again
    others = [Step(4, 10, 1, 1), Step(3, 10, 2, 1), Step(3, 10, 1, 0), Step(3, 10, 1, 1, rank=1)]
    found = [again, draws(here, "boxes"), *map(draws, others)]
    assert len({tuple(numbers) for numbers in found}) == len(found)
    assert len({other.uniform("level") for other in others[2:]} | {here.uniform("level")}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mixup", "logitmix", "manifold_mixup"])
def test_an_evaluation_in_between_does_not_change_a_run(tmp_path, method):
    """Over two epochs, in another order each; the model has no dropout, so nothing else is random."""

    def train(**options):
        rows = data_without_types(24)
        options = {"num_train_epochs": 2, "max_steps": -1, **options}
        trainer = MixTrainer(
            tiny_bert(), arguments(tmp_path, **options), train_dataset=rows, eval_dataset=rows[:6], method=method
        )
        trainer.train()
        return weights(trainer.model)

    alone = train()
    assert torch.equal(alone, train(eval_strategy="steps", eval_steps=1))
    assert torch.equal(alone, train(eval_strategy="epoch"))
    assert not torch.equal(alone, train(seed=1))


# ---- a second run --------------------------------------------------------------------------------------------------


def test_a_second_run_follows_changed_options_and_data(tmp_path):
    """Infogain's weights are min N / N_i of the data that is trained on."""
    rows = data_without_types(18)
    few = [row for row in rows if row["labels"] != 0] + [row for row in rows if row["labels"] == 0][:2]
    trainer = MixTrainer(
        tiny_bert(), arguments(tmp_path, cls=MixTrainingArguments, method="infogain", max_steps=1), train_dataset=rows
    )
    for data in (rows, few):
        trainer.train_dataset = data
        trainer.train()
        counts = [sum(row["labels"] == k for row in data) for k in range(3)]
        expected = torch.tensor([min(counts) / count for count in counts])
        torch.testing.assert_close(trainer.method_in_training.targets.matrix(3), torch.diag(expected))
    trainer.args.method, trainer.args.alpha = "mixup", 2.5
    trainer.train()
    assert trainer.method.pairing.lam.alpha == 2.5
    assert "mix" in log_of(trainer)[-1]


def test_a_second_run_learns_the_parameters_of_its_own_method(tmp_path):
    rows, similarity = data_without_types(18), (torch.ones(3, 3) - torch.eye(3)) / 2
    method = Method(targets=SGMCEL(class_similarity=similarity, targets_lr=0.02))
    args = arguments(tmp_path, cls=MixTrainingArguments, max_steps=2, optim="adamw_torch")
    trainer = MixTrainer(tiny_bert(), args, train_dataset=rows, method=method)
    trainer.train()
    first = [parameter.clone() for parameter in trainer._extras.parameters()]
    trainer.train()  # the same method goes on
    second = [parameter.clone() for parameter in trainer._extras.parameters()]
    assert not torch.equal(first[0], second[0])
    args.eps = 0.3
    trainer.train()  # another one starts at its own eps, and is trained too
    third = trainer.method_in_training.targets.learned().detach()
    assert (third - 0.3).abs().max() < (third - 0.2).abs().max()
    assert not torch.allclose(third, torch.full((3,), 0.3), atol=1e-3)
