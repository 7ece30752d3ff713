"""How masks of two texts of unequal length meet: against the model's own logits, and masks that are made by hand."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from torch import nn
from transformers import AttentionInterface

from helpers.architectures import inputs_of
from helpers.data import batch_of, examples, soft_mask
from helpers.models import VOCABULARY, bert_from, tiny_bert, tiny_vit
from helpers.tiny_models import tiny_model
from helpers.training import arguments, weights
from hf_logitmix import MixPlan, MixTrainer, get_method, mixed_forward
from hf_logitmix.mixing import CutMix, Linear
from hf_logitmix.training.rehearsal import rehearse

LENGTHS = (16, 8, 12, 16, 5, 13)
PAIRS = torch.tensor([1, 0, 3, 2, 5, 4])
SHORTER = torch.tensor([False, True, True, False, True, False])
EXACT = {"atol": 1e-5, "rtol": 1e-4}


def in_use(model: nn.Module) -> nn.Module:
    """Padding with a vector of its own, as models have that were trained."""
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight[model.config.pad_token_id] = 0.5
    return model.eval()


def plan_of(lam, rows=6):
    return MixPlan(PAIRS[:rows], torch.as_tensor(lam).expand(rows).float())


# ---- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["embedding", "hidden:1", "hidden:2"])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("model_type", "left"),
    [("bert", False), ("bert", True), ("roberta", False), ("distilbert", False), ("gpt2", True), ("llama", True)],
)
@torch.no_grad()
def test_the_ends_are_the_rows_themselves(model_type, left, level, rows, attention):
    model = in_use(tiny_model(model_type))
    model.set_attn_implementation(attention)
    inputs = inputs_of(model, LENGTHS, left)
    clean, mixing = model(**inputs).logits, Linear(level=level, masks="soft")
    for lam, expected in ((1.0, clean), (0.0, clean[PAIRS])):
        output = mixed_forward(model, inputs, plan_of(lam), mixing=mixing, rows=rows)
        torch.testing.assert_close(output.mixed_logits, expected, **EXACT)
        if rows == "both":
            torch.testing.assert_close(output.logits, clean, **EXACT)
    if level == "hidden:2":
        return  # no attention is left after the last layer
    by_union = mixed_forward(model, inputs, plan_of(1.0), mixing=Linear(level=level, masks="union"), rows=rows)
    assert (by_union.mixed_logits - clean)[SHORTER].abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize(("model_type", "left"), [("bert", False), ("llama", True)])
@torch.no_grad()
def test_the_ends_in_half_precision(model_type, left, is_autocast, dtype):
    model = in_use(tiny_model(model_type))
    model = model if is_autocast else model.to(dtype)
    inputs = inputs_of(model, LENGTHS, left)
    with torch.autocast("cpu", dtype, enabled=is_autocast):
        clean = model(**inputs).logits
        mixed = mixed_forward(model, inputs, plan_of(1.0), mixing=Linear(masks="soft")).mixed_logits
        torch.testing.assert_close(mixed, clean, atol=0.02, rtol=0.02)
        between = mixed_forward(model, inputs, plan_of(0.3), mixing=Linear(masks="soft")).mixed_logits
    exact = mixed_forward(model.float(), inputs, plan_of(0.3), mixing=Linear(masks="soft")).mixed_logits
    torch.testing.assert_close(between.float(), exact, atol=0.1, rtol=0.1)


# ---- between the ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["embedding", "hidden:1"])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize("count", [6, 4])
@torch.no_grad()
def test_each_place_is_weighed_by_its_lam(level, rows, count):
    """One lam an example; by hand as `inputs_embeds`, or from a layer on."""
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    del batch["token_type_ids"]
    plan = plan_of(torch.tensor([0.2, 0.9, 0.5, 0.35, 0.6, 0.1])[:count], count)
    lam, own, partner = plan.lam[:, None, None], torch.arange(count), PAIRS[:count]
    if level == "embedding":
        vectors = model.get_input_embeddings()(batch["input_ids"])
        mask = soft_mask(batch["attention_mask"][:count], partner, plan.lam[:, None])
        expected = model(inputs_embeds=lam * vectors[own] + (1 - lam) * vectors[partner], attention_mask=mask).logits
    else:
        states = model(**batch, output_hidden_states=True).hidden_states[1]
        weights_by_hand = plan.lam[:, None] * batch["attention_mask"][:count]
        weights_by_hand = weights_by_hand + (1 - plan.lam[:, None]) * batch["attention_mask"][partner]
        expected = _softly_from(model, lam * states[own] + (1 - lam) * states[partner], weights_by_hand)
    output = mixed_forward(model, batch, plan, mixing=Linear(level=level, masks="soft"), rows=rows)
    torch.testing.assert_close(output.mixed_logits, expected, **EXACT)


def _softly_from(model, hidden, weights_by_hand):
    """BERT from its first layer on, with softmax weights that are multiplied and divided by their sum again."""

    def multiply(module, query, key, value, attention_mask, **kwargs):
        shares = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1) * weights_by_hand[:, None, None]
        return (shares / shares.sum(-1, keepdim=True) @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("by_hand", multiply)
    model.set_attn_implementation("by_hand")
    try:
        return bert_from(model, hidden, 1, torch.ones(hidden.shape[:2]))
    finally:
        model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_causal_attention_is_weighed_too():
    """A decoder against a model that multiplies its softmax weights, a row at a time."""
    model = in_use(tiny_model("llama"))
    inputs, lam = inputs_of(model, LENGTHS, left=True), 0.3
    found = mixed_forward(model, inputs, plan_of(lam), mixing=Linear(masks="soft"), rows="mixed").mixed_logits
    weights_by_hand = lam * inputs["attention_mask"] + (1 - lam) * inputs["attention_mask"][PAIRS]
    vectors = model.get_input_embeddings()(inputs["input_ids"])
    mixed = lam * vectors + (1 - lam) * vectors[PAIRS]

    def multiply(module, query, key, value, attention_mask, **kwargs):
        key, value = (states.repeat_interleave(2, 1) for states in (key, value))
        length = query.shape[2]
        shares = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).exp() * weights_by_hand[:, None, None]
        shares = shares * torch.ones(length, length).tril()
        return (shares / shares.sum(-1, keepdim=True).clamp_min(1e-30) @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("by_hand", multiply)
    model.set_attn_implementation("by_hand")
    hidden = model.model(inputs_embeds=mixed).last_hidden_state[:, -1]
    torch.testing.assert_close(found, model.score(hidden), **EXACT)


@pytest.mark.parametrize("masks", ["soft", "union"])
@torch.no_grad()
def test_texts_of_one_length_meet_in_one_way(masks):
    model = tiny_bert().eval()
    batch = {"input_ids": torch.randint(3, VOCABULARY, (6, 7), generator=torch.Generator().manual_seed(0))}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    expected = mixed_forward(model, {"input_ids": batch["input_ids"]}, plan_of(0.4)).mixed_logits
    found = mixed_forward(model, batch, plan_of(0.4), mixing=Linear(masks=masks)).mixed_logits
    torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_alone_a_forward_takes_the_union():
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    union = mixed_forward(model, batch, plan_of(0.4), mixing=Linear(masks="union")).mixed_logits
    for options in ({}, {"mixing": Linear()}, {"rehearse": True}):
        torch.testing.assert_close(mixed_forward(model, batch, plan_of(0.4), **options).mixed_logits, union)


# ---- which of the two ----------------------------------------------------------------------------------------------


def found_for(model, inputs, caplog, level="embedding", rows="both"):
    with caplog.at_level(logging.INFO, logger="hf_logitmix.training.rehearsal"):
        caplog.clear()
        masks = rehearse(model, inputs, Linear(level=level), rows).masks
    records = [record for record in caplog.records if record.name == "hf_logitmix.training.rehearsal"]
    return masks, [record.getMessage() for record in records], [record.levelname for record in records]


@pytest.mark.parametrize(
    ("model_type", "left", "line"),
    [
        ("bert", False, "INFO exact with padding on the right"),
        ("bert", True, "INFO exact with padding on the left"),
        ("llama", True, "INFO exact with padding on the left"),
        ("llama", False, "WARNING with padding on the right, lam = 1 .*padding_side='left'"),
        ("roberta", True, "WARNING with padding on the left, lam = 1 .*padding_side='right'"),
    ],
)
def test_soft_where_the_model_takes_it(model_type, left, line, caplog):
    model = in_use(tiny_model(model_type))
    masks, lines, levels = found_for(model, inputs_of(model, LENGTHS, left), caplog)
    severity, _, words = line.partition(" ")
    assert (masks, levels) == ("soft", [severity])
    assert re.search(words, lines[0])


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_batch_without_padding_tells_it_too(model_type, caplog):
    model = in_use(tiny_model(model_type))
    assert found_for(model, inputs_of(model), caplog)[0] == "soft"
    assert found_for(model, inputs_of(model, LENGTHS), caplog, level="manifold", rows="mixed")[0] == "soft"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("deberta-v2", "does not take a mask of numbers"),  # multiplies it
        ("xlnet", "does not take a mask of numbers"),
        ("esm", "does not take a mask of numbers"),  # counts tokens by it
        ("opt", "counts positions from its attention mask"),
        ("mistral", "windows"),
        ("modernbert", "sliding_attention"),
        ("qwen3_next", "linear_attention"),
    ],
)
def test_the_union_elsewhere_and_one_line_says_so(model_type, reason, caplog):
    model = in_use(tiny_model(model_type))
    inputs = inputs_of(model, LENGTHS, left=True)
    masks, lines, levels = found_for(model, inputs, caplog)
    assert (masks, levels) == ("union", ["WARNING"])
    assert reason in lines[0]
    assert type(model).__name__ in lines[0]
    with pytest.raises(ValueError, match=rf"masks='soft' does not go with {type(model).__name__}"):
        rehearse(model, inputs, Linear(masks="soft"))


def test_flash_attention_is_refused_or_left_alone(caplog):
    model, inputs = tiny_bert(), batch_of(examples(6))
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match=r"flash_attention_2.*Pass masks='union'"):
        mixed_forward(model, inputs, plan_of(0.5), mixing=Linear(masks="soft"))
    with pytest.raises(ValueError, match=r"flash_attention_2.*Leave it out"):
        Linear(masks="soft").check(model, "both")


class Averages(nn.Module):
    """The mean over the tokens of the mask, with a BERT inside that would take another."""

    def __init__(self):
        super().__init__()
        self.inner = tiny_bert()
        self.config = self.inner.config

    def forward(self, input_ids, attention_mask):
        states = self.inner.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mean = (states * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        return self.inner.classifier(mean)


def test_a_mean_over_the_mask_is_found(caplog):
    batch = batch_of(examples(6))
    del batch["token_type_ids"]
    assert found_for(Averages(), batch, caplog)[0] == "union"


def test_nothing_to_find_behind_the_masks():
    assert rehearse(tiny_bert(), batch_of(examples(6)), Linear(level="pooled"), "mixed").masks is None
    pixels = {"pixel_values": torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    assert rehearse(tiny_vit(), pixels, Linear()).masks is None
    assert rehearse(tiny_vit(), pixels, CutMix()) == CutMix()
    with pytest.raises(ValueError, match="masks='soft' is for text"):
        Linear(masks="soft").check(tiny_vit(), "both")
    with pytest.raises(ValueError, match="masks='hard' is unknown"):
        Linear(masks="hard")


# ---- in MixTrainer -------------------------------------------------------------------------------------------------

SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def record(folder):
    return json.loads((folder / "hf_logitmix.json").read_text())["options"]["mixing"]["masks"]


def trained(folder, model, resume=None, rehearsed=True, data=None, **options):
    method = get_method("mixup", **options)
    data = examples(24) if data is None else data
    trainer = MixTrainer(model, arguments(folder, **SAVING), method=method, train_dataset=data, rehearse=rehearsed)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_run_says_which_it_took_and_keeps_to_it(tmp_path):
    soft = trained(tmp_path / "open", tiny_bert())
    assert soft.method.mixing.masks == record(tmp_path / "open" / "checkpoint-4") == "soft"
    asked = trained(tmp_path / "asked", tiny_bert(), masks="soft")
    torch.testing.assert_close(weights(soft.model), weights(asked.model), rtol=0, atol=0)
    union = trained(tmp_path / "union", tiny_bert(), masks="union")
    assert (weights(union.model) - weights(soft.model)).abs().max() > 1e-6
    untried = trained(tmp_path / "untried", tiny_bert(), rehearsed=False)
    assert record(tmp_path / "untried" / "checkpoint-4") == "union"
    torch.testing.assert_close(weights(untried.model), weights(union.model), rtol=0, atol=0)
    soft.train()
    assert soft.method.mixing.masks == "soft"


@pytest.mark.parametrize("was", ["soft", "union", None])
def test_a_resumed_run_goes_on_with_what_it_began_with(tmp_path, was):
    """None: a checkpoint from before there was a choice."""
    whole = trained(tmp_path / "whole", tiny_bert(), masks=was or "union")
    path = tmp_path / "whole" / "checkpoint-2" / "hf_logitmix.json"
    if was is None:
        saved = json.loads(path.read_text())
        del saved["options"]["mixing"]["masks"]
        path.write_text(json.dumps(saved))
    resumed = trained(tmp_path / "whole", tiny_bert(seed=1), resume=str(path.parent))
    assert resumed.method.mixing.masks == (was or "union")
    torch.testing.assert_close(weights(resumed.model), weights(whole.model), rtol=0, atol=0)
    other = "union" if was == "soft" else "soft"
    with pytest.raises(ValueError, match=rf"masks was {was or 'union'} and is {other}"):
        trained(tmp_path / "whole", tiny_bert(), resume=str(path.parent), masks=other)


def test_checkpointed_activations_give_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        model = tiny_bert().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        output = mixed_forward(model, batch_of(examples(6)), plan_of(0.3), mixing=Linear(masks="soft"))
        output.mixed_logits.square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(found[1], found[0])
