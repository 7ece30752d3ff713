"""SSMix: spans, ids and lam against a loop over words in plain Python; who tells which tokens are special; training."""

from __future__ import annotations

import json
import math
import random
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from helpers.architectures import MODEL_TYPES, NEEDS_OTHER_PACKAGES
from helpers.data import examples, random_images
from helpers.launching import TORCHRUN, run_launched
from helpers.models import tiny_bert, tiny_vit
from helpers.pages import SENTENCES, text_names
from helpers.tiny_models import tiny_model
from helpers.training import InOrder, arguments, logged, weights
from hf_logitmix import Method, MixCollator, MixPlan, MixTrainer, get_method, mixed_forward
from hf_logitmix.glue import run as run_glue
from hf_logitmix.losses import logitmix_loss
from hf_logitmix.mixing import Linear, SpanMix, Switch
from hf_logitmix.mixing.saliency import saliency_of
from hf_logitmix.mixing.span import segments_of, spanmix
from hf_logitmix.objectives import LaMix, LogitMix, Mixed, RegMixup
from hf_logitmix.pairing import Beta, Constant, RandomPairs
from hf_logitmix.step import Step
from hf_logitmix.training.training_set import TrainingSet

PAD, CLS, SEP, MARK = 0, 1, 2, 3
SPECIAL = (PAD, CLS, SEP, MARK)
LAMS = ("1", "0.99", "0.95", "0.9", "0.8", "0.7", "0.5", "0.3", "0.1", "0")


# ---- by hand ----------------------------------------------------------------------------------------------------


def text_of(rng: random.Random, kind: str) -> list[tuple[int, int]]:
    """A text as (id, token type): one sentence or two, as BERT and RoBERTa put them, of 0 to 12 words."""

    def words(least: int = 1) -> list[int]:
        return [rng.randrange(4, 60) for _ in range(rng.choice([least, 1, 2, 3, 5, 8, 10, 12]))]

    first, second = [CLS, *words(0), SEP], [*words(), SEP]
    if kind == "marked":  # special tokens among the words of a sentence
        first.insert(rng.randrange(1, len(first)), MARK)
    if kind == "roberta pair" and rng.random() < 0.8:
        return [(token, 0) for token in (*first, SEP, *second)]
    if kind == "bert pair" and rng.random() < 0.8:
        return [*((token, 0) for token in first), *((token, 1) for token in second)]
    return [(token, 0) for token in first]


def segments_by_hand(text: list[tuple[int, int]], has_types: bool) -> dict[int, list[int]]:
    """The places of the words of each segment."""
    found: dict[int, list[int]] = {}
    run, before = -1, True
    for place, (token, kind) in enumerate(text):
        is_special = token in SPECIAL
        run += before and not is_special
        before = is_special
        if not is_special:
            found.setdefault(kind if has_types else run, []).append(place)
    return found


def spans_by_hand(a, b, lam: str, worth_a, worth_b, has_types: bool) -> tuple[list[int], Fraction]:
    """The ids of text a with spans of b, and the share of its words that is left."""
    ids, gone, words = [token for token, _ in a], 0, 0
    theirs = segments_by_hand(b, has_types)
    for segment, own in segments_by_hand(a, has_types).items():
        words += len(own)
        other = theirs.get(segment)
        if lam == "1" or not other:
            continue
        length = max(1, min(math.floor((1 - Fraction(lam)) * len(own)), len(other)))

        def starts(places, worth, length=length):
            return [sum(worth[place] for place in places[k : k + length]) for k in range(len(places) - length + 1)]

        least, most = starts(own, worth_a), starts(other, worth_b)
        put, taken = least.index(min(least)), most.index(max(most))
        for k in range(length):
            ids[own[put + k]] = b[other[taken + k]][0]
        gone += length
    return ids, 1 - Fraction(gone, max(words, 1))


def padded(texts, side: str, has_types: bool) -> dict[str, torch.Tensor]:
    """A batch of texts."""
    width = max(map(len, texts)) + 1
    rows = [[(PAD, 0)] * (width - len(text)) for text in texts]
    rows = [[*text, *pad] if side == "right" else [*pad, *text] for text, pad in zip(texts, rows, strict=True)]
    rows = torch.tensor(rows)
    batch = {"input_ids": rows[..., 0], "attention_mask": (rows[..., 0] != PAD).long()}
    return {**batch, "token_type_ids": rows[..., 1]} if has_types else batch


def words_in(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return ~torch.isin(batch["input_ids"], torch.tensor(SPECIAL))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["single", "marked", "bert pair", "roberta pair"])
def test_spans_are_those_of_a_loop_over_words(kind, side):
    """600 mixed rows of each kind; saliency in few whole numbers, so that many spans are equal and the first counts."""
    rng, seen = random.Random(f"{kind} {side}"), []
    has_types = kind != "roberta pair"
    for _ in range(100):
        texts = [text_of(rng, kind) for _ in range(6)]
        batch = padded(texts, side, has_types)
        worth = [[rng.randrange(4) for _ in text] for text in texts]
        ids, width = batch["input_ids"], batch["input_ids"].shape[1]
        saliency = torch.full(ids.shape, 9.0)  # of what is no word, it is not looked at
        for row, (text, values) in enumerate(zip(texts, worth, strict=True)):
            first = 0 if side == "right" else width - len(text)
            saliency[row, first : first + len(text)] = torch.tensor(values, dtype=torch.float32)
        partner = [rng.randrange(6) for _ in range(6)]
        lams = [rng.choice(LAMS) for _ in range(6)]
        plan = MixPlan(torch.tensor(partner), torch.tensor([float(lam) for lam in lams]))
        is_word = words_in(batch)
        mixed, true_plan = spanmix(ids, is_word, segments_of(is_word, batch.get("token_type_ids")), plan, saliency)
        assert torch.equal(mixed[~is_word], ids[~is_word])  # special tokens and padding
        for row, (own, lam) in enumerate(zip(partner, lams, strict=True)):
            expected, share = spans_by_hand(texts[row], texts[own], lam, worth[row], worth[own], has_types)
            first = 0 if side == "right" else width - len(expected)
            assert mixed[row, first : first + len(expected)].tolist() == expected
            assert true_plan.lam[row].item() == pytest.approx(float(share), abs=1e-6)
            seen.append(float(share))
        assert torch.equal(true_plan.partner, plan.partner)
    assert {0.0, 1.0} < set(seen)
    assert len(set(seen)) > 20


def test_short_texts():
    """A single word goes whatever lam says; a partner gives what it has; a text without words stays."""
    ids = torch.tensor([[CLS, 10, SEP, PAD], [CLS, 20, 21, SEP], [CLS, SEP, PAD, PAD]])
    is_word = words_in({"input_ids": ids})
    plan = MixPlan(torch.tensor([1, 0, 1]), torch.tensor([0.9, 0.0, 0.5]))
    saliency = torch.tensor([[0, 1, 0, 0], [0, 5, 2, 0], [0, 0, 0, 0]]).float()
    mixed, true_plan = spanmix(ids, is_word, segments_of(is_word, None), plan, saliency)
    assert mixed.tolist() == [[CLS, 20, SEP, PAD], [CLS, 20, 10, SEP], [CLS, SEP, PAD, PAD]]
    assert true_plan.lam.tolist() == [0.0, 0.5, 1.0]
    mixed, true_plan = spanmix(
        ids, is_word, segments_of(is_word, None), plan._replace(partner=torch.tensor([2, 2, 2])), saliency
    )
    assert torch.equal(mixed, ids)
    assert true_plan.lam.tolist() == [1.0, 1.0, 1.0]


def test_the_worked_example_of_the_page():
    """ "a good soup" is left, of equals the first: see docs/methods/ssmix.md."""
    words = ["[CLS]", "the", "soup", "was", "really", "good", "[SEP]", "a", "slow", "and", "boring", "film"]
    number = {word: place for place, word in enumerate(words)}
    texts = ("[CLS] the soup was really good [SEP]", "[CLS] a slow and boring film [SEP]")
    ids = torch.tensor([[number[word] for word in text.split()] for text in texts])
    saliency = torch.tensor([[0.0, 0.1, 0.6, 0.2, 0.3, 0.9, 0.0], [0.0, 0.1, 0.7, 0.1, 0.8, 0.5, 0.0]])
    is_word = (ids != 0) & (ids != 6)
    found = {}
    for lam in (0.9, 0.6):
        plan = MixPlan(torch.tensor([1]), torch.tensor([lam]))
        mixed, true_plan = spanmix(ids, is_word, segments_of(is_word, None), plan, saliency)
        found[lam] = " ".join(words[i] for i in mixed[0]), true_plan.lam.item()
    assert found[0.9] == ("[CLS] boring soup was really good [SEP]", pytest.approx(0.8))
    assert found[0.6] == ("[CLS] the soup boring film good [SEP]", pytest.approx(0.6))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_saliency_that_overflows_counts_as_even(value):
    ids = torch.tensor([[CLS, 10, 11, 12, SEP], [CLS, 20, 21, 22, SEP]])
    is_word, plan = words_in({"input_ids": ids}), MixPlan(torch.tensor([1, 0]), torch.tensor([0.6, 0.6]))
    saliency = torch.tensor([[0.0, 3.0, 1.0, 2.0, 0.0], [0.0, 1.0, value, 3.0, 0.0]])
    mixed, true_plan = spanmix(ids, is_word, segments_of(is_word, None), plan, saliency)
    assert mixed.tolist() == [[CLS, 10, 20, 12, SEP], [CLS, 10, 21, 22, SEP]]
    assert true_plan.lam.tolist() == pytest.approx([2 / 3, 2 / 3])


@pytest.mark.parametrize("saliency", [True, False])
def test_no_step_waits_for_the_device(saliency):
    """Nothing is asked of the numbers: on the meta device there are none."""
    ids, lam = torch.zeros(4, 9, dtype=torch.long, device="meta"), torch.zeros(3, device="meta")
    plan, worth = MixPlan(torch.zeros(3, dtype=torch.long, device="meta"), lam), torch.zeros(4, 9, device="meta")
    segment = segments_of(ids > 3, None)
    mixed, true_plan = spanmix(ids, ids > 3, segment, plan, worth if saliency else None)
    assert (mixed.shape, true_plan.lam.shape, true_plan.lam.dtype) == ((3, 9), (3,), torch.float32)


def test_random_spans_are_spans_from_everywhere():
    """All places of both texts are equally likely, and independent."""
    ids = torch.tensor([[CLS, *range(10, 15), SEP], [CLS, *range(20, 25), SEP]]).repeat(1500, 1)
    is_word, partner = words_in({"input_ids": ids}), torch.arange(3000) ^ 1
    plan, places = MixPlan(partner, torch.full((3000,), 0.6)), {}
    mixed, true_plan = spanmix(ids, is_word, segments_of(is_word, None), plan, None, torch.Generator().manual_seed(0))
    torch.testing.assert_close(true_plan.lam, torch.full((3000,), 0.6))
    for row, (before, after) in enumerate(zip(ids.tolist(), mixed.tolist(), strict=True)):
        put = [place for place in range(7) if before[place] != after[place]]
        taken = [ids[partner[row]].tolist().index(after[place]) for place in put]
        assert put == [put[0], put[0] + 1]
        assert taken == [taken[0], taken[0] + 1]
        assert {*put, *taken} <= set(range(1, 6))
        places[put[0], taken[0]] = places.get((put[0], taken[0]), 0) + 1
    assert len(places) == 16
    assert stats.chisquare(list(places.values())).pvalue > 0.001


# ---- with a model -----------------------------------------------------------------------------------------------


def two_kinds(has_types: bool) -> tuple[list, dict[str, torch.Tensor], torch.Tensor]:
    rng = random.Random(5)
    texts = [text_of(rng, "bert pair" if has_types else "roberta pair") for _ in range(6)]
    return texts, padded(texts, "right", has_types), torch.tensor([0, 2, 1, 0, 2, 1])


def saliency_by_hand(model, text, label: int, has_types: bool) -> list[float]:
    """The L2 norm of the gradient of an example's own loss at the embedding of each of its tokens, without padding."""
    batch = padded([text], "right", has_types)
    batch = {name: value[:, :-1] for name, value in batch.items()}
    words = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    loss = F.cross_entropy(model(inputs_embeds=words, **batch).logits, torch.tensor([label]))
    return torch.autograd.grad(loss, words)[0][0].norm(dim=-1).tolist()


def mixed_by_hand(model, texts, labels, plan, lam: str, has_types: bool) -> tuple[torch.Tensor, torch.Tensor]:
    worth = [saliency_by_hand(model, text, int(label), has_types) for text, label in zip(texts, labels, strict=True)]
    ids, shares = padded(texts, "right", has_types)["input_ids"].clone()[: len(plan.partner)], []
    for row, other in enumerate(plan.partner.tolist()):
        new, share = spans_by_hand(texts[row], texts[other], lam, worth[row], worth[other], has_types)
        ids[row, : len(new)] = torch.tensor(new)
        shares.append(float(share))
    return ids, torch.tensor(shares)


@pytest.mark.parametrize("has_types", [True, False])
@pytest.mark.parametrize("rows", ["both", "mixed"])
@pytest.mark.parametrize("count", [6, 4])
def test_one_pass_gives_what_a_loop_over_examples_gives(has_types, rows, count):
    """Ids and lam by the saliency of each example alone; the logits are those of plain forwards."""
    model = tiny_bert(dropout=0.3).double().eval()
    texts, batch, labels = two_kinds(has_types)
    plan = MixPlan(torch.tensor([3, 0, 5, 1, 2, 4])[:count], torch.full((count,), 0.7))
    ids, lam = mixed_by_hand(model, texts, labels, plan, "0.7", has_types)
    assert not torch.equal(ids, batch["input_ids"][:count])
    mixing = SpanMix(special_ids=SPECIAL)
    output = mixed_forward(model, batch, plan, mixing=mixing, rows=rows, labels=labels)
    torch.testing.assert_close(output.plan.lam, lam)
    own = {name: value[:count] for name, value in batch.items()}
    torch.testing.assert_close(output.mixed_logits, model(**{**own, "input_ids": ids}).logits)
    if rows == "both":
        torch.testing.assert_close(output.logits, model(**batch).logits)
    else:
        assert output.logits is None
    worth = saliency_of(model, batch, labels)[1]
    for row, text in enumerate(texts):
        by_hand = torch.tensor(saliency_by_hand(model, text, int(labels[row]), has_types))
        torch.testing.assert_close(math.sqrt(32) * worth[row, : len(text)], by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [Mixed(), LogitMix(weights=(1, 2, 0.5)), RegMixup(eta=0.5)], ids=str)
def test_the_loss_is_that_of_the_rows_by_hand(objective):
    """With the true lam, one a row, of labels and of the similarity."""
    model, (texts, batch, labels) = tiny_bert(), two_kinds(True)
    plan = MixPlan(torch.tensor([3, 0, 5, 1, 2, 4]), torch.full((6,), 0.7))
    ids, lam = mixed_by_hand(model.eval(), texts, labels, plan, "0.7", True)
    assert len(set(lam.tolist())) > 1
    method = Method(SpanMix(special_ids=SPECIAL), objective, pairing=RandomPairs(lam=Constant(0.7)))
    ready = method.setup(TrainingSet(examples(6), model, 3))
    terms, output = ready(model.train(), batch, labels, Step(0, 1), plan)
    clean, mixed = model(**batch).logits, model(**{**batch, "input_ids": ids}).logits
    own, other = (F.cross_entropy(mixed, of, reduction="none") for of in (labels, labels[plan.partner]))
    mix = lam * own + (1 - lam) * other
    expected = {"mix": mix}
    if not isinstance(objective, Mixed):
        expected["cls"] = F.cross_entropy(clean, labels, reduction="none")
    if isinstance(objective, LogitMix):
        expected["sim"] = (lam[:, None] * clean + (1 - lam)[:, None] * clean[plan.partner] - mixed).square().mean(-1)
        loss = logitmix_loss(output.logits, output.mixed_logits, labels, output.plan, weights=objective.weights)
        total = expected["mix"].mean() + 2 * expected["cls"].mean() + 0.5 * expected["sim"].mean()
        torch.testing.assert_close(loss.total, total)
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term.rows, expected[name], atol=1e-5, rtol=1e-4)


def ids_shown(model, run) -> list[dict[str, torch.Tensor]]:
    """What the model is called with in a function."""
    seen = []
    handle = model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize("saliency", [True, False])
def test_a_step_draws_the_same_again_and_another_one_other_spans(saliency):
    model, (_, batch, labels) = tiny_bert(dropout=0.3).train(), two_kinds(True)
    plan, mixing = MixPlan(torch.tensor([3, 0, 5, 1, 2, 4]), torch.full((6,), 0.7)), SpanMix(saliency, SPECIAL)

    def mixed(step: Step) -> list:
        torch.manual_seed(random.randrange(99))
        shown = ids_shown(model, lambda: mixing(model, batch, plan, "mixed", step=step, labels=labels))
        assert len(shown) == 1 + saliency
        return shown[-1]["input_ids"].tolist()

    first = mixed(Step(0, 9, seed=3))
    assert mixed(Step(0, 9, seed=3)) == first
    others = [
        mixed(step) for step in (Step(1, 9, 3), Step(0, 9, 4), Step(0, 9, 3, micro_batch=1), Step(0, 9, 3, rank=1))
    ]
    assert all((other == first) is saliency for other in others)


def test_saliency_is_found_in_evaluation_mode_and_leaves_no_trace():
    model, (_, batch, labels) = tiny_bert(dropout=0.3).train(), two_kinds(True)
    plan, modes = MixPlan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5])), []
    handle = model.register_forward_pre_hook(
        lambda module, args: modes.append((module.training, torch.is_grad_enabled()))
    )
    before = torch.random.get_rng_state()
    with torch.no_grad():
        mixed_forward(model, batch, plan, mixing=SpanMix(special_ids=SPECIAL), rows="both", labels=labels)
    handle.remove()
    assert modes == [(False, True), (True, False)]
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.random.set_rng_state(before)


@torch.no_grad()
def test_all_of_an_equally_long_partner_is_the_partner():
    model, ids = tiny_bert().eval(), torch.tensor([[CLS, 10, 11, 12, SEP], [CLS, 20, 21, 22, SEP]])
    plan = MixPlan(torch.tensor([1, 0]), torch.zeros(2))
    output = mixed_forward(
        model, {"input_ids": ids}, plan, mixing=SpanMix(special_ids=SPECIAL), labels=torch.tensor([0, 1])
    )
    assert output.plan.lam.tolist() == [0.0, 0.0]
    torch.testing.assert_close(output.mixed_logits, output.logits.flip(0))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if name not in NEEDS_OTHER_PACKAGES])
def test_every_architecture(model_type):
    """Mixed rows are plain forwards of ids of which some are the partner's; three have no saliency, and say so."""
    model, generator = tiny_model(model_type), torch.Generator().manual_seed(0)
    ids = 5 + 30 * torch.arange(4)[:, None] + torch.randint(0, 30, (4, 16), generator=generator)  # no word in two texts
    ids[:, 0], ids[:, -1] = 0, 2
    batch = {"inputs" if model_type == "perceiver" else "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plan, labels = MixPlan(torch.tensor([1, 2, 3, 0]), torch.tensor([0.8, 0.8, 1.0, 0.5])), torch.tensor([0, 1, 2, 0])
    mixing = SpanMix(special_ids=(0, 1, 2))
    if model_type in ("canine", "xlnet", "reformer"):
        with pytest.raises(
            (ValueError, AssertionError), match=r"pass saliency=False|make sure to use `model.train\(\)`"
        ):
            mixed_forward(model, batch, plan, mixing=mixing, labels=labels)
        mixing = SpanMix(saliency=False, special_ids=(0, 1, 2))
    output, shown = None, []

    def run():
        nonlocal output
        output = mixed_forward(model, batch, plan, mixing=mixing, labels=labels)

    shown = ids_shown(model, run)[-1]
    with torch.no_grad():
        clean = model(**batch).logits
        mixed = model(**{name: value[4:] for name, value in shown.items()}).logits
    spread = clean.std(0).max()
    assert (output.logits - clean).abs().max() < 2e-3 * spread
    assert (output.mixed_logits - mixed).abs().max() < 2e-3 * spread
    new = shown[next(iter(batch))][4:]
    assert (new != ids).sum(1).tolist() == [2, 2, 0, 7]
    assert output.plan.lam.tolist() == pytest.approx([12 / 14, 12 / 14, 1.0, 0.5])


# ---- which tokens are special -----------------------------------------------------------------------------------


def named(tokens: list[str], **names) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    vocabulary = {token: number for number, token in enumerate(tokens)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=tokens[0])), **names
    )


def test_special_ids_are_those_of_the_tokenizer(tmp_path):
    """Of the Trainer or of a collator, wrapped or not; the one for unknown words is a word if it is nothing else."""
    tokens = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "word", "<e1>"]
    bert = named(tokens, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    gpt2 = named(["<end>", "word"], unk_token="<end>", eos_token="<end>", bos_token="<end>")
    model = tiny_bert()

    def found(**given):
        return SpanMix().setup(TrainingSet(examples(4), model, 3, **given)).special_ids

    assert found(processing_class=bert) == (1, 2, 3)
    assert found(processing_class=gpt2) == (0,)
    assert found(collator=DataCollatorWithPadding(bert)) == (1, 2, 3)
    assert found(collator=MixCollator(DataCollatorWithPadding(bert))) == (1, 2, 3)
    bert.add_special_tokens({"additional_special_tokens": ["<e1>"]})
    assert found(processing_class=bert) == (1, 2, 3, 5)
    given = SpanMix(special_ids=[7]).setup(TrainingSet(examples(4), model, 3, processing_class=bert))
    assert given.special_ids == (7,)
    both = Switch(Linear(), SpanMix()).setup(TrainingSet(examples(4), model, 3, processing_class=gpt2))
    assert both.second.special_ids == (0,)


def test_a_config_is_taken_with_a_line_in_the_log_or_not_at_all(caplog):
    from transformers import default_data_collator

    for model_type, ids in {"roberta": (0, 1, 2), "t5": (0, 1, 2)}.items():
        data = TrainingSet(examples(4), tiny_model(model_type), 3, default_data_collator)
        assert SpanMix().setup(data).special_ids == ids
        assert f"takes {ids} of {type(data.model).__name__}'s config" in caplog.text
    with pytest.raises(ValueError, match=r"BertForSequenceClassification's config tells none: pass processing_class="):
        SpanMix().setup(TrainingSet(examples(4), tiny_bert(), 3, default_data_collator))


def test_a_mask_in_the_batch_counts_before_special_ids():
    model, (_, batch, labels) = tiny_bert(), two_kinds(True)
    plan = MixPlan(torch.tensor([3, 0, 5, 1, 2, 4]), torch.full((6,), 0.5))
    ids = batch["input_ids"]
    mask = (ids < 30).long()  # as if half of the words were special

    def mixed(mixing, **more):
        def run():
            output = mixed_forward(model, {**batch, **more}, plan, mixing=mixing, labels=labels)
            lams.append(output.plan.lam)

        lams: list = []
        shown = ids_shown(model, run)
        assert all("special_tokens_mask" not in kwargs for kwargs in shown)
        return shown[-1]["input_ids"][6:], lams[0]

    new, lam = mixed(SpanMix(special_ids=(PAD,)), special_tokens_mask=mask)
    assert torch.equal(new[mask.bool()], ids[mask.bool()])
    assert (new >= 30).equal(ids >= 30)
    assert not torch.equal(new, ids)
    assert len(set(lam.tolist())) > 1
    known = mixed(SpanMix(special_ids=SPECIAL))
    assert all(torch.equal(a, b) for a, b in zip(mixed(SpanMix(special_ids=SPECIAL[1:])), known, strict=True))  # no PAD
    both = mixed(SpanMix(), special_tokens_mask=torch.isin(ids, torch.tensor(SPECIAL)).long())
    assert all(torch.equal(a, b) for a, b in zip(both, known, strict=True))


@pytest.mark.parametrize("method", ["ssmix", "lamix", "mixup", "vanilla", "mcel"])
def test_a_column_of_masks_trains_and_is_shown_to_no_model(tmp_path, method):
    """In steps on clean rows, with every method, before training and in evaluation."""
    data = [{**row, "special_tokens_mask": (row["input_ids"] < 9).long()} for row in examples(24)]
    model = tiny_bert()
    chosen = get_method(method)
    if method == "lamix":
        chosen = Method(SpanMix(), LaMix(), pairing=chosen.pairing)
    trainer = MixTrainer(model=model, args=arguments(tmp_path), method=chosen, train_dataset=data, eval_dataset=data)
    shown = ids_shown(model, lambda: (trainer.train(), trainer.evaluate(), trainer.predict(data)))
    assert len(shown) > 6
    assert all("special_tokens_mask" not in kwargs for kwargs in shown)
    if method == "ssmix":
        assert trainer.method_in_training.mixing.special_ids is None
        assert all(kwargs["input_ids"].shape[1] == 9 for kwargs in shown)


# ---- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lam", [None, 0.5])
def test_a_run_logs_the_share_of_own_words(tmp_path, lam):
    """Of sentences of 1 to 9 words, tokenized and padded as in a script; with `lam` as an option."""
    names = text_names(tmp_path)
    rows, tokenizer = names["train_dataset"], names["tokenizer"]
    method = get_method("ssmix", **({} if lam is None else {"lam": lam}))
    trainer = InOrder(
        model=names["model"], args=arguments(tmp_path), method=method, train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    assert trainer.method_in_training.mixing.special_ids == (0, 2, 3, 4)  # [UNK] is 1
    lengths = [len(tokenizer.tokenize(sentence)) for sentence in SENTENCES * 4]
    assert {len(ids) - 2 for ids in rows["input_ids"]} == set(lengths)
    expected = []
    for step in range(3):
        own = lengths[8 * step : 8 * step + 8]
        plan = method.pairing({"x": torch.zeros(8, 1)}, None, Step(step, 3, trainer.args.seed))
        share = Fraction(1, 10) if lam is None else Fraction(1, 2)
        gone = [max(1, min(int(share * n), own[j])) / n for n, j in zip(own, plan.partner.tolist(), strict=True)]
        expected.append(1 - sum(gone) / 8)
    assert logged(trainer, "lam_mean") == pytest.approx(expected, abs=1e-5)


def trained(folder, saliency=True, **options):
    model = tiny_bert(dropout=0.2)
    if options.pop("checkpointing", False):
        options |= {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": options.pop("kwargs")}
    method = Method(
        SpanMix(saliency, (0,)), LogitMix(), pairing=RandomPairs(lam=Beta(1.0), per_example=True, fraction=0.5)
    )
    trainer = MixTrainer(model=model, args=arguments(folder, **options), method=method, train_dataset=examples(24))
    trainer.train()
    return weights(model), logged(trainer, "lam_mean")


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(tmp_path, use_reentrant):
    plain, lams = trained(tmp_path)
    checkpointed, again = trained(tmp_path, checkpointing=True, kwargs={"use_reentrant": use_reentrant})
    torch.testing.assert_close(checkpointed, plain, atol=1e-5, rtol=1e-4)
    assert again == pytest.approx(lams)
    assert len(set(lams)) == 3


@pytest.mark.slow
def test_a_compiled_model_trains_alike(tmp_path):
    plain, lams = trained(tmp_path)
    compiled, again = trained(tmp_path, torch_compile=True, torch_compile_backend="eager")
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
    assert again == pytest.approx(lams)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(tmp_path):
    """Saliency is found on each by itself, around DistributedDataParallel."""
    found = []
    for launcher in (TORCHRUN, [sys.executable]):
        folder = tmp_path / str(len(launcher))
        folder.mkdir()
        run_launched(launcher, "spans", str(folder))
        found += [json.loads(path.read_text()) for path in sorted(folder.glob("?.json"))]
    assert len(found) == 3
    for one in found[:2]:
        np.testing.assert_allclose(one["weights"], found[2]["weights"], atol=2e-5)
        assert one["lam_mean"] == pytest.approx(found[2]["lam_mean"], abs=1e-6)


def test_the_script_for_glue(start, tmp_path):
    """With the tokenizer's special tokens, and lam and saliency as options; words go before a model sees them."""
    argv = [*start, "--method", "ssmix", "--lam", "0.6", "--saliency", "false", "--max_steps", "4"]
    assert run_glue.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "hf_logitmix.json").read_text())
    assert record["method"] == "ssmix"
    assert record["options"]["pairing"]["lam"] == {"type": "Constant", "value": 0.6}
    assert record["options"]["mixing"] == {"type": "SpanMix", "saliency": False, "special_ids": None}
    log = json.loads(next((tmp_path / "out").glob("**/trainer_state.json")).read_text())["log_history"]
    lams = [entry["lam_mean"] for entry in log if "lam_mean" in entry]
    assert len(lams) == 4
    assert all(0.6 <= lam < 0.85 for lam in lams)  # of 3 to 5 words one or two go


# ---- refusals ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_mixed_is_refused_in_a_sentence(tmp_path):
    model, (_, batch, labels) = tiny_bert(), two_kinds(True)
    plan, ready = MixPlan(torch.tensor([1, 0]), torch.tensor([0.9, 0.9])), SpanMix(special_ids=SPECIAL)
    words = model.get_input_embeddings()(batch["input_ids"])
    of_words = {"inputs_embeds": words, "attention_mask": batch["attention_mask"]}
    for inputs, mixing, of, message in [
        (batch, SpanMix(), labels, "must know which tokens are special: pass processing_class=tokenizer, special_ids="),
        (batch, ready, None, "needs the labels of the batch for its saliency: pass labels=, or saliency=False"),
        (of_words, ready, labels, "hold no `input_ids`, only inputs_embeds, attention_mask"),
        (
            {**batch, "attention_mask": batch["attention_mask"][:, None, None]},
            ready,
            labels,
            "`attention_mask` has the",
        ),
        ({**batch, "bbox": torch.zeros(*words.shape[:2], 4).long()}, ready, labels, "tells `bbox` of each token"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixed_forward(model, inputs, plan, mixing=mixing, labels=of)
    mixed_forward(model, batch, plan, mixing=SpanMix(False, SPECIAL))  # needs no labels
    with pytest.raises(
        ValueError, match=r"mixing=SpanMix.* is for text and ViT\w+ reads images: pass a method for images"
    ):
        MixTrainer(model=tiny_vit(), args=arguments(tmp_path), method="ssmix", train_dataset=random_images(8))
    trainer = MixTrainer(model=model, args=arguments(tmp_path), method="ssmix", train_dataset=examples(24))
    with pytest.raises(ValueError, match="config tells none: pass processing_class=tokenizer"):
        trainer.train()
