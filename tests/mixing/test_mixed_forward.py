"""One forward over [clean ; mixed] rows, against truths that do not go through the hooks."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BartForSequenceClassification,
    BertPreTrainedModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from helpers.data import batch_of, examples, real
from helpers.models import VOCABULARY, bert_from, hooks_on, tiny_bert, tiny_vit
from hf_logitmix import MixPlan, mixed_forward
from hf_logitmix.glue.data import load_task
from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.mixing import CutMix, Linear
from hf_logitmix.modalities.text import attached

PLAN = MixPlan(torch.tensor([3, 0, 4, 1, 2, 5]), torch.tensor([0.9, 0.1, 0.55, 0.3, 0.7, 0.4]))
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
SMALL = {"vocab_size": VOCABULARY, "num_labels": 3, "pad_token_id": 0, "initializer_range": 0.3}
NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    small_bart = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    bart_heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "d_model": 32, "init_std": 0.3}
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0}
    gpt2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "eos_token_id": 2, "bos_token_id": 1}
    bart = {**small_bart, **bart_heads, "eos_token_id": 2, "forced_eos_token_id": 2, "max_position_embeddings": 32}
    return {
        "bert": tiny_bert(),
        "roberta": RobertaForSequenceClassification(RobertaConfig(**SMALL, **NARROW, max_position_embeddings=40)),
        "distilbert": DistilBertForSequenceClassification(
            DistilBertConfig(
                vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=48, num_labels=3, **no_dropout
            )
        ),
        "gpt2": GPT2ForSequenceClassification(GPT2Config(**SMALL, **gpt2)),
        "llama": LlamaForSequenceClassification(LlamaConfig(**SMALL, **NARROW)),
        "xlnet": XLNetForSequenceClassification(
            XLNetConfig(
                vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=48, num_labels=3, pad_token_id=0
            )
        ),
        "bart": BartForSequenceClassification(BartConfig(vocab_size=VOCABULARY, num_labels=3, pad_token_id=0, **bart)),
    }


MODELS = models()


def inputs_for(name: str) -> dict[str, torch.Tensor]:
    """Unequal lengths; bart wants one end-of-text token at the end of each row."""
    batch = batch_of(examples(6))
    if name != "bert":
        del batch["token_type_ids"]
    if name == "bart":
        last = batch["attention_mask"].sum(1) - 1
        batch["input_ids"][torch.arange(6), last] = 2
    return batch


def by_new_tokens(model: PreTrainedModel, batch: dict[str, torch.Tensor], plan: MixPlan) -> torch.Tensor:
    """Mixed rows one by one: each mixed vector becomes a token of its own in a longer embedding table.

    Where both of a pair hold the same id it is kept, so that the model still finds its end-of-text token.
    """
    rows = []
    for i, (j, lam) in enumerate(zip(plan.partner.tolist(), plan.lam.tolist(), strict=True)):
        grown = copy.deepcopy(model).eval()
        own, other = batch["input_ids"][i], batch["input_ids"][j]
        table = model.get_input_embeddings().weight.data
        vectors = lam * table[own] + (1 - lam) * table[other]
        grown.resize_token_embeddings(VOCABULARY + len(own), mean_resizing=False)
        grown.get_input_embeddings().weight.data[VOCABULARY:] = vectors
        longer = i if batch["attention_mask"][i].sum() >= batch["attention_mask"][j].sum() else j
        ids = torch.where(own == other, own, VOCABULARY + torch.arange(len(own)))
        padding = batch["input_ids"][longer] == 0
        ids = torch.where(padding, 0, ids)
        mask = batch["attention_mask"][i] | batch["attention_mask"][j]
        rows.append(grown(input_ids=ids[None], attention_mask=mask[None]).logits[0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "bart"])
@torch.no_grad()
def test_equals_a_model_that_holds_the_mixed_vectors_as_tokens(name):
    model, batch = MODELS[name].eval(), inputs_for(name)
    batch.pop("token_type_ids", None)
    expected = by_new_tokens(model, batch, PLAN)
    torch.testing.assert_close(mixed_forward(model, batch, PLAN).mixed_logits, expected, **TOLERANCE)
    torch.testing.assert_close(mixed_forward(model, batch, PLAN, rows="mixed").mixed_logits, expected, **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_clean_half_is_a_plain_forward(name):
    model, batch = MODELS[name].eval(), inputs_for(name)
    torch.testing.assert_close(mixed_forward(model, batch, PLAN).logits, model(**batch).logits, **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_lam_one_gives_the_clean_logits_and_lam_zero_the_partners(name, rows):
    model, batch = MODELS[name].eval(), inputs_for(name)
    batch["input_ids"][batch["input_ids"] == 0] = 7
    if name == "bart":
        batch["input_ids"][batch["input_ids"] == 2] = 7
        batch["input_ids"][:, -1] = 2
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    clean = model(**batch).logits
    for lam, expected in ((1.0, clean), (0.0, clean[PLAN.partner])):
        plan = MixPlan(PLAN.partner, torch.full((6,), lam))
        torch.testing.assert_close(mixed_forward(model, batch, plan, rows=rows).mixed_logits, expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "xlnet"])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_a_pair_is_symmetric(name, rows):
    """lam of (i, j) is 1 - lam of (j, i); lengths are unequal within each pair, token types differ."""
    model, batch = MODELS[name].eval(), inputs_for(name)
    there = MixPlan(torch.tensor([1, 0, 3, 2, 5, 4]), torch.tensor([0.2, 0.8, 0.35, 0.65, 0.5, 0.5]))
    mixed = mixed_forward(model, batch, there, rows=rows).mixed_logits
    torch.testing.assert_close(mixed, mixed[there.partner], **TOLERANCE)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_hidden_level_mixes_own_states_under_own_masks_and_goes_on_under_the_union(layer, rows):
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    states = model(**batch, output_hidden_states=True).hidden_states[layer]
    lam = PLAN.lam[:, None, None]
    mixed = lam * states + (1 - lam) * states[PLAN.partner]
    union = batch["attention_mask"] | batch["attention_mask"][PLAN.partner]
    output = mixed_forward(model, batch, PLAN, mixing=Linear(level=f"hidden:{layer}"), rows=rows)
    torch.testing.assert_close(output.mixed_logits, bert_from(model, mixed, layer, union), **TOLERANCE)


@pytest.mark.parametrize("level", ["embedding", "hidden:1"])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_a_mixed_row_attends_to_the_union_where_neither_mask_holds_the_other(rows, level):
    """Padding on the left meets padding on the right, or a hole; by hand, as `inputs_embeds` or from a layer on."""
    model = tiny_bert().eval()
    ids = torch.randint(3, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(5))
    mask = torch.tensor(
        [[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0]]
    )
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([0.3, 0.6, 0.5, 0.8]))
    lam, union = plan.lam[:, None, None], mask | mask[plan.partner]
    assert union.sum(1).tolist() == [8, 8, 7, 7]
    if level == "embedding":
        vectors = model.get_input_embeddings()(ids)
        mixed = lam * vectors + (1 - lam) * vectors[plan.partner]
        expected = model(inputs_embeds=mixed, attention_mask=union).logits
    else:
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[1]
        expected = bert_from(model, lam * states + (1 - lam) * states[plan.partner], 1, union)
    batch = {"input_ids": ids, "attention_mask": mask}
    output = mixed_forward(model, batch, plan, mixing=Linear(level=level), rows=rows)
    torch.testing.assert_close(output.mixed_logits, expected, **TOLERANCE)


@torch.no_grad()
def test_pooled_level_mixes_the_input_of_the_head():
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    pooled = model.bert(**batch).pooler_output
    lam = PLAN.lam[:, None]
    expected = model.classifier(lam * pooled + (1 - lam) * pooled[PLAN.partner])
    output = mixed_forward(model, batch, PLAN, mixing=Linear(level="pooled"))
    torch.testing.assert_close(output.mixed_logits, expected, **TOLERANCE)


@torch.no_grad()
def test_manifold_draws_every_level_equally_often():
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    levels = ["embedding", "hidden:1", "hidden:2", "hidden:3"]
    by_level = [mixed_forward(model, batch, PLAN, mixing=Linear(level=level)).mixed_logits for level in levels]
    for number in range(8):
        step = SimpleNamespace(uniform=lambda purpose, number=number: (number + 0.5) / 8)
        mixed = mixed_forward(model, batch, PLAN, mixing=Linear(level="manifold"), step=step).mixed_logits
        assert [torch.allclose(mixed, other, atol=1e-5) for other in by_level].index(True) == number // 2


@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_a_shorter_plan_mixes_the_first_rows(rows):
    model, batch = tiny_bert().eval(), batch_of(examples(6))
    short = MixPlan(PLAN.partner[:2], PLAN.lam[:2])
    full = mixed_forward(model, batch, PLAN)
    output = mixed_forward(model, batch, short, rows=rows)
    torch.testing.assert_close(output.mixed_logits, full.mixed_logits[:2], **TOLERANCE)
    if rows == "both":
        torch.testing.assert_close(output.logits, full.logits, **TOLERANCE)


@pytest.mark.parametrize("rows", ["both", "mixed"])
@torch.no_grad()
def test_a_batch_of_one_meets_itself(rows):
    model, batch = tiny_bert().eval(), batch_of(examples(1))
    plan = MixPlan(torch.tensor([0]), torch.tensor([0.3]))
    torch.testing.assert_close(
        mixed_forward(model, batch, plan, rows=rows).mixed_logits, model(**batch).logits, **TOLERANCE
    )


@torch.no_grad()
def test_square_batches_are_not_turned():
    """xlnet turns its ids to [L, rows]: with as many rows as tokens the axes can only be told from the values."""
    for name in ("xlnet", "bert"):
        model = MODELS[name].eval()
        batch = {"input_ids": torch.randint(3, VOCABULARY, (5, 10), generator=torch.Generator().manual_seed(3))}
        plan = MixPlan(torch.tensor([1, 2, 3, 4, 0]), torch.zeros(5))
        clean = model(**batch).logits
        torch.testing.assert_close(mixed_forward(model, batch, plan).mixed_logits, clean[plan.partner], **TOLERANCE)


def test_gradients_reach_the_embeddings_of_both_examples():
    model, batch = tiny_bert(), {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]])}
    plan = MixPlan(torch.tensor([1, 1]), torch.tensor([0.5, 0.5]))
    for rows in ("both", "mixed"):
        model.zero_grad()
        mixed_forward(model, batch, plan, rows=rows).mixed_logits[0].square().sum().backward()
        touched = model.bert.embeddings.word_embeddings.weight.grad.abs().sum(1) > 0
        assert touched.nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 10]


@torch.no_grad()
def test_images_mix_their_pixels():
    model = tiny_vit().eval()
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([0.2, 0.4, 0.6, 0.8]))
    lam = plan.lam[:, None, None, None]
    expected = model(pixel_values=lam * pixels + (1 - lam) * pixels[plan.partner]).logits
    output = mixed_forward(model, {"pixel_values": pixels}, plan)
    torch.testing.assert_close(output.mixed_logits, expected, **TOLERANCE)
    torch.testing.assert_close(output.logits, model(pixel_values=pixels).logits, **TOLERANCE)


class Boom(nn.Module):
    def forward(self, *args, **kwargs):
        raise KeyError("boom")


def test_nothing_is_left_on_the_model():
    model, batch = tiny_bert(), batch_of(examples(6))
    attributes = set(vars(model))
    mixed_forward(model, batch, PLAN)
    with attached(model) as outer, attached(model) as inner:
        assert inner is outer
        mixed_forward(model, batch, PLAN)
        assert hooks_on(model) > 0
    broken = copy.deepcopy(model)
    broken.bert.encoder.layer[1] = Boom()
    with pytest.raises(KeyError, match="boom"):
        mixed_forward(broken, batch, PLAN)
    for left in (model, broken):
        assert hooks_on(left) == 0
        assert set(vars(left)) == attributes
    pickle.dumps(model)


class Deaf(BertPreTrainedModel):
    """Names an input embedding that its forward never calls."""

    def __init__(self, config):
        super().__init__(config)
        self.named = nn.Embedding(VOCABULARY, 4)
        self.used = nn.Parameter(torch.randn(VOCABULARY, 3))

    def get_input_embeddings(self):
        return self.named

    def forward(self, input_ids, **kwargs):
        return {"logits": self.used[input_ids].mean(1)}


@pytest.mark.parametrize("rows", ["both", "mixed"])
def test_a_model_that_would_not_be_mixed_is_an_error(rows):
    with pytest.raises(RuntimeError, match="nothing was mixed"):
        mixed_forward(Deaf(tiny_bert().config), batch_of(examples(6)), PLAN, rows=rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "all"}, "rows='all'"),
        ({"plan": MixPlan(PLAN.partner, PLAN.lam[:2])}, "does not fit|pass one of each"),
        ({"plan": MixPlan(torch.arange(9), torch.ones(9))}, "does not fit|pass one of each"),
        ({"mixing": Linear(level="hidden:9")}, "hidden:1 to hidden:3"),
        ({"mixing": CutMix()}, "CutMix.* is for images and .* reads text"),
        ({"inputs": {"labels": torch.zeros(6)}}, "`labels`"),
        ({"inputs": {"inputs_embeds": torch.zeros(6, 9, 32)}}, "no `input_ids`"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {"inputs": batch_of(examples(6)), "plan": PLAN, **change}
    with pytest.raises(ValueError, match=message):
        mixed_forward(tiny_bert(), **arguments)


@pytest.mark.parametrize("level", ["", "hidden", "hidden:0", "hidden:x", "top", "Embedding", None])
def test_unknown_levels_are_named(level):
    with pytest.raises(ValueError, match="level="):
        Linear(level=level)


@torch.no_grad()
def test_levels_that_a_model_lacks_are_named():
    batch = inputs_for("llama")
    with pytest.raises(ValueError, match="pools before its head"):
        mixed_forward(MODELS["llama"], batch, PLAN, mixing=Linear(level="pooled"))
    with pytest.raises(ValueError, match="one list of hidden layers"):
        mixed_forward(MODELS["bart"], inputs_for("bart"), PLAN, mixing=Linear(level="hidden:1"))


@torch.no_grad()
def test_real_bert_on_real_pairs():
    """A pretrained BERT on MRPC: the clean half is a plain forward, and equal pairs follow lam = 1 and lam = 0."""
    path = real("HF_LOGITMIX_MODEL")
    _, data = load_task(TASKS["mrpc"], ("dev",), str(real("HF_LOGITMIX_DATA") / "glue"))["dev"][0]
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(0)  # of the new head
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    pairs = data[:6]
    batch = dict(tokenizer(pairs["sentence1"], pairs["sentence2"], padding=True, return_tensors="pt"))
    clean = model(**batch).logits
    assert len(set(batch["attention_mask"].sum(1).tolist())) > 1
    torch.testing.assert_close(mixed_forward(model, batch, PLAN).logits, clean, **TOLERANCE)
    cut = {name: value[:, : int(batch["attention_mask"].sum(1).min())] for name, value in batch.items()}
    clean = model(**cut).logits
    for lam, expected in ((1.0, clean), (0.0, clean[PLAN.partner])):
        plan = MixPlan(PLAN.partner, torch.full((6,), lam))
        for rows in ("both", "mixed"):
            torch.testing.assert_close(mixed_forward(model, cut, plan, rows=rows).mixed_logits, expected, **TOLERANCE)


class SecondTable(type(tiny_bert())):
    """Looks its ids up in a table of its own, too."""

    def __init__(self, config):
        super().__init__(config)
        self.more = nn.Embedding(config.vocab_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, **inputs):
        output = super().forward(input_ids=input_ids, **inputs)
        output.logits = output.logits + self.more(input_ids).mean(1)
        return output


@pytest.mark.parametrize("rows", ["both", "mixed"])
def test_a_model_that_would_be_mixed_in_part_is_an_error(rows):
    model, batch = SecondTable(tiny_bert().config), batch_of(examples(4))
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.full((4,), 0.3))
    with pytest.raises(RuntimeError, match=r"Embedding\(60, 3\) reads the ids of the words too.*mixed in part"):
        mixed_forward(model, batch, plan, rows=rows)
    assert mixed_forward(model, batch, plan, mixing=Linear(level="hidden:1"), rows=rows).mixed_logits.shape == (4, 3)


class RemadeTypes(type(tiny_bert())):
    """A BERT whose forward makes its token types anew, so that no embedding is called with the batch's own tensor."""

    def forward(self, input_ids=None, token_type_ids=None, **kwargs):
        return super().forward(input_ids, token_type_ids=token_type_ids.clone(), **kwargs)


@torch.no_grad()
def test_token_types_are_mixed_even_where_the_model_makes_them_anew():
    torch.manual_seed(0)
    model, batch = RemadeTypes(tiny_bert().config).eval(), batch_of(examples(6))
    both = mixed_forward(model, batch, PLAN).mixed_logits
    torch.testing.assert_close(mixed_forward(model, batch, PLAN, rows="mixed").mixed_logits, both, **TOLERANCE)
