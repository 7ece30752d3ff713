"""SSMix: a span of the partner's words in the place of one of a text's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.saliency import saliency_of
from hf_logitmix.modalities.text import ids_of, on_mixed_ids
from hf_logitmix.models import SPECIAL_TOKENS, name_of, unwrap
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.papers import SSMIX
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet

logger = logging.getLogger(__name__)

_ROUNDING = 1e-6  # of a lam in float32: at 0.8 a fifth of ten words is two
_OF_EACH_TOKEN = ("attention_mask", "token_type_ids", SPECIAL_TOKENS)
_FRAME = (*_OF_EACH_TOKEN, "position_ids", "global_attention_mask")  # what stays a text's own
_ENDS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")  # in a config: where texts begin and end
_HOW = "pass processing_class=tokenizer, special_ids=, or batches with a `special_tokens_mask`"


def segments_of(is_word: Tensor, types: Tensor | None) -> Tensor:
    """The segment of each word, such as its sentence of a pair: by token types or, without them, by runs of words.

    Types are believed: where a tokenizer gives both sentences of a pair the same one, leave ``token_type_ids`` out.

    Args:
        is_word: BoolTensor[B, L], False for padding and special tokens, which end a run.
        types: LongTensor[B, L], or None.

    Returns:
        LongTensor[B, L] in 0..L; of no meaning where there is no word.
    """
    if types is not None:
        return types.long().clamp(0, types.shape[1])
    begins = is_word & ~F.pad(is_word, (1, 0))[:, :-1]
    return (begins.cumsum(1) - 1).clamp_min(0)


def spanmix(
    ids: Tensor,
    is_word: Tensor,
    segment: Tensor,
    plan: MixPlan,
    saliency: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, MixPlan]:
    r"""Put a span of the partner's words in the place of one of the text's own, in each segment that both have.

    .. math:: l = \max(1, \min(\lfloor (1 - \lambda) |x_A| \rfloor, |x_B|))

    words of :math:`|x_A|` in a segment go: those that are least salient together, for the partner's that are most
    salient together; of equals the first (Yoon et al., SSMix, 2021, where :math:`1 - \lambda` is :math:`\lambda_0`).
    Special tokens between the words of a segment are not counted, and stay where they are.

    Args:
        ids: LongTensor[B, L]; not changed.
        is_word: BoolTensor[B, L], False for what never moves: special tokens and padding.
        segment: LongTensor[B, L] in 0..L; see `segments_of`.
        plan: of M <= B rows; those at lam 1 are left alone.
        saliency: FloatTensor[B, L], not negative. A row with NaN or infinity in it counts as equally salient
            everywhere. None draws both spans at random.
        generator: source of the random spans, on the CPU; None is torch's global one.

    Returns:
        the mixed ids, LongTensor[M, L], and the plan whose lam is the share of a text's own words that is left.
    """
    words, rows = _Words.of(is_word, segment), slice(len(plan.partner))
    own, other = words.of_rows(rows), words.of_rows(plan.partner)
    share = 1 - plan.lam.double().unsqueeze(1) + _ROUNDING
    length = torch.minimum((share * own.counts).floor().long(), other.counts).clamp_min(1)
    length = length.masked_fill((own.counts == 0) | (other.counts == 0) | (plan.lam == 1).unsqueeze(1), 0)
    if saliency is None:
        drawn = torch.rand(2, *own.order.shape, generator=generator)
        least, most = drawn.to(ids.device, non_blocking=True)
    else:
        finite = saliency.isfinite().all(1, keepdim=True)
        saliency = torch.where(finite, saliency, 0).double()  # in which sums of equal numbers are equal
        least, most = -own.sums(saliency[rows], length), other.sums(saliency[plan.partner], length)
    put, taken = own.best(least, length), other.best(most, length)
    offset = torch.arange(ids.shape[1], device=ids.device) - put.gather(1, own.segment)
    goes = (offset >= 0) & (offset < length.gather(1, own.segment))
    source = (taken.gather(1, own.segment) + offset).clamp(0, ids.shape[1] - 1)
    new = ids[plan.partner].gather(1, other.order).gather(1, source)
    mixed = ids[rows].scatter(1, own.order, torch.where(goes, new, ids[rows].gather(1, own.order)))
    lam = 1 - length.sum(1).double() / own.counts.sum(1).clamp_min(1)
    return mixed, plan._replace(lam=lam.to(plan.lam.dtype))


class _Words(NamedTuple):
    """The words of texts, those of each segment side by side and in their order; what is no word comes last.

    Attributes:
        order: the place of each in its text, LongTensor[B, L].
        segment: of each, L + 1 for what is no word, LongTensor[B, L].
        counts: of the words in each segment, LongTensor[B, L + 2].
    """

    order: Tensor
    segment: Tensor
    counts: Tensor

    @classmethod
    def of(cls, is_word: Tensor, segment: Tensor) -> _Words:
        key = segment.masked_fill(~is_word, segment.shape[1] + 1)
        counts = key.new_zeros(len(key), key.shape[1] + 2).scatter_add_(1, key, is_word.long())
        key, order = key.sort(dim=1, stable=True)
        return cls(order, key, counts)

    def of_rows(self, rows: Any) -> _Words:
        return _Words(*(part[rows] for part in self))

    def _stops(self, length: Tensor) -> Tensor:
        """Behind the last word of the span that begins at each, for spans of a length for each segment, [B, L]."""
        return torch.arange(self.order.shape[1], device=length.device) + length.gather(1, self.segment)

    def sums(self, values: Tensor, length: Tensor) -> Tensor:
        """Of the values [B, L] of the words in the span that begins at each, [B, L]."""
        total = F.pad(values.gather(1, self.order).cumsum(1), (1, 0))
        return total.gather(1, self._stops(length).clamp(max=values.shape[1])) - total[:, :-1]

    def best(self, worth: Tensor, length: Tensor) -> Tensor:
        """Where in each segment the span of most worth begins, the first of equals, [B, L + 2]."""
        end = self.counts.cumsum(1).gather(1, self.segment)
        worth = worth.masked_fill(self._stops(length) > end, -torch.inf)
        most = worth.new_full(length.shape, -torch.inf).scatter_reduce(1, self.segment, worth, "amax")
        at = torch.arange(worth.shape[1], device=worth.device)
        begins = torch.where(worth == most.gather(1, self.segment), at, worth.shape[1])
        return torch.full_like(length, worth.shape[1]).scatter_reduce(1, self.segment, begins, "amin")


@dataclass(frozen=True)
class SpanMix(Mixing):
    r"""SSMix (Yoon, Kim, Park, SSMix: Saliency-Based Span Mixup for Text Classification, Findings of ACL 2021).

    In each text the least salient span of words gives place to the partner's most salient one; see `spanmix` for how
    long they are. 1 - lam of the plan is the share of words to replace, lambda_0 of the paper, and the lam that comes
    out is the share of own words that is left. Ids are replaced before the forward, which is exact for every model;
    special tokens, padding, attention mask and token types stay a text's own. The sentences of a pair are mixed one by
    one: by ``token_type_ids`` where there are some, otherwise by the special tokens between them.

    The saliency of a word is the norm of the gradient of the clean batch's loss at its embedding. It costs a forward
    and a backward down to the embedding of all rows, in evaluation mode, so that dropout adds no noise, and outside of
    torch.compile and DistributedDataParallel. Unlike PuzzleMix it is a pass of its own where clean rows are asked for
    too: those then go through the model beside the mixed ones, in one forward.

    Attributes:
        saliency: False draws both spans at random, which costs nothing.
        special_ids: ids of the tokens that never move, padding among them unless batches have an ``attention_mask``;
            () where there are none. A ``special_tokens_mask`` in the batch counts before it. None: found before
            training from the tokenizer, without the one for unknown words, or from the model's config.

    Raises:
        ValueError: for ids that are none; before training for a model of images, and where nothing tells which tokens
            are special; for batches without ids, or with more beside them that belongs to single words.
    """

    papers = (SSMIX,)
    reads: ClassVar[tuple[str, ...]] = ("text",)
    gives_partner_at_0: ClassVar[bool] = False

    saliency: bool = field(
        default=True, metadata={"help": "SSMix: choose spans by their saliency; else they are drawn at random."}
    )
    special_ids: Sequence[int] | None = field(
        default=None,
        metadata={
            "help": "SSMix: ids of the special tokens, which never move; else those of the tokenizer.",
            "command_line": False,
        },
    )

    def __post_init__(self) -> None:
        if not isinstance(self.saliency, bool):
            raise ValueError(f"saliency must be True or False, got {self.saliency!r}.")
        if self.special_ids is None:
            return
        is_sequence = isinstance(self.special_ids, Sequence) and not isinstance(self.special_ids, str)
        if not is_sequence or not all(isinstance(i, int) and i >= 0 for i in self.special_ids):
            raise ValueError(f"special_ids must be ids of tokens, such as (0, 101, 102), got {self.special_ids!r}.")
        object.__setattr__(self, "special_ids", tuple(self.special_ids))

    @property
    def place(self) -> str:
        return f"at saliency={self.saliency}"

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        return [replace(self, saliency=False)] if self.saliency else []

    def setup(self, training_set: TrainingSet) -> SpanMix:
        if self.special_ids is not None:
            return self
        if training_set.tokenizer is not None:
            return replace(self, special_ids=_of_tokenizer(training_set.tokenizer))
        batch = training_set.first_batch()
        if batch is None or SPECIAL_TOKENS in batch:
            return self  # batches tell, or the first step says that they do not
        model = unwrap(training_set.model)
        if not (known := _of_config(getattr(model, "config", None))):
            raise ValueError(
                f"SpanMix must know which tokens are special, and {name_of(model)}'s config tells none: {_HOW}."
            )
        logger.warning(
            "No tokenizer is known, so SpanMix takes %s of %s's config for the ids of all special tokens; if there are "
            "others, %s.",
            *(known, name_of(model), _HOW),
        )
        return replace(self, special_ids=known)

    def __call__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        plan: MixPlan,
        rows: Rows,
        *,
        step: Step,
        labels: Tensor | None = None,
        criterion: Criterion | None = None,
    ) -> MixedOutput:
        self.check(model)
        name, ids = ids_of(inputs)
        _check_batch(name, inputs)
        is_word = self._words(inputs, ids)
        saliency = None
        if self.saliency:
            if labels is None:
                raise ValueError(
                    "SpanMix needs the labels of the batch for its saliency: pass labels=, or saliency=False."
                )
            _, saliency = saliency_of(model, inputs, labels, criterion)
        segment = segments_of(is_word, inputs.get("token_type_ids"))
        mixed, plan = spanmix(ids, is_word, segment, plan, saliency, step.generator("spans"))
        return on_mixed_ids(model, inputs, mixed, plan, rows)

    def _words(self, inputs: Mapping[str, Any], ids: Tensor) -> Tensor:
        """Which tokens may move, BoolTensor[B, L]."""
        if (special := inputs.get(SPECIAL_TOKENS)) is not None:
            is_word = ~special.bool()
        elif self.special_ids is not None:
            known = torch.tensor(self.special_ids, dtype=ids.dtype).to(ids.device, non_blocking=True)
            is_word = ~(ids.unsqueeze(-1) == known).any(-1)
        else:
            raise ValueError(
                f"SpanMix must know which tokens are special: {_HOW}; or call setup() before the first step."
            )
        return is_word if (mask := inputs.get("attention_mask")) is None else is_word & mask.bool()


def _of_tokenizer(tokenizer: Any) -> tuple[int, ...]:
    """Its special ids. An unknown word is a word, unless the token for it is another special one too, as in GPT-2."""
    names = dict(tokenizer.special_tokens_map)
    unknown = names.pop("unk_token", None)
    ids = set(tokenizer.all_special_ids)
    if unknown is not None and unknown not in names.values():
        ids.discard(tokenizer.convert_tokens_to_ids(unknown))
    return tuple(sorted(ids))


def _of_config(config: Any) -> tuple[int, ...]:
    """The special ids that a model's config names; none unless one of those at the ends of texts is among them."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: set[int] = set()
    for name in _ENDS:
        value = getattr(config, name, None)
        found.update(value if isinstance(value, (list, tuple)) else [] if value is None else [value])
    pad = getattr(config, "pad_token_id", None)
    return tuple(sorted(found | ({pad} if found and pad is not None else set())))


def _check_batch(name: str, inputs: Mapping[str, Any]) -> None:
    """Refuse frames of another shape than the ids, and what else tells of single tokens, such as boxes on a page."""
    shape = inputs[name].shape
    for other, value in inputs.items():
        if other == name or not isinstance(value, Tensor):
            continue
        if other in _OF_EACH_TOKEN and value.shape != shape:
            raise ValueError(
                f"`{other}` has the shape {tuple(value.shape)} and `{name}` {tuple(shape)}: SpanMix needs one number "
                "for each token."
            )
        if other not in _FRAME and value.shape[:2] == shape and value.dim() < 4:
            raise ValueError(
                f"the batch tells `{other}` of each token, which would not go along with the ids that SpanMix moves: "
                "pass another mixing, such as Linear()."
            )
