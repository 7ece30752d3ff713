"""A tiny random model of every sequence-classification architecture of transformers.

Configurations are built from the names of their fields: sizes, heads and layers are small, dropouts are zero, and
weights are drawn wide enough that different inputs give clearly different logits. The rest stands in `SPECIAL`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

HIDDEN, HEADS, HEAD, INNER, VOCABULARY, LAYERS, POSITIONS = 32, 4, 8, 64, 128, 2, 96
NUM_LABELS = 3
PAD, BOS, EOS = 1, 0, 2


def _each(value: Any, *names: str) -> dict[str, Any]:
    return dict.fromkeys(names, value)


BY_NAME: dict[str, Any] = {
    **_each(VOCABULARY, "vocab_size"),
    **_each(HIDDEN, "hidden_size", "d_model", "n_embd", "emb_dim", "dim", "word_embed_proj_dim"),
    **_each(16, "embedding_size", "input_embedding_size"),
    **_each(HEADS, "num_attention_heads", "n_head", "n_heads", "num_heads"),
    **_each(HEADS, "encoder_attention_heads", "decoder_attention_heads"),
    **_each(2, "num_key_value_heads", "num_kv_heads"),
    **_each(HEAD, "head_dim", "d_kv", "kv_channels", "attention_head_size"),
    **_each(INNER, "intermediate_size", "d_inner", "d_ff", "dff", "hidden_dim", "ffn_dim", "n_inner"),
    **_each(INNER, "encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size"),
    **_each(LAYERS, "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"),
    **_each(LAYERS, "num_decoder_layers"),
    **_each(POSITIONS, "max_position_embeddings", "n_positions", "max_seq_len"),
    **_each(2, "type_vocab_size"),
    # mixtures of experts
    **_each(32, "moe_intermediate_size", "shared_expert_intermediate_size"),
    **_each(4, "n_routed_experts", "num_local_experts", "num_experts"),
    **_each(1, "n_shared_experts", "n_group", "topk_group", "first_k_dense_replace"),
    "num_experts_per_tok": 2,
    # latent attention
    **_each(16, "kv_lora_rank", "q_lora_rank"),
    **_each(8, "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim"),
    # linear attention and state spaces
    **_each(8, "linear_key_head_dim", "linear_value_head_dim"),
    **_each(4, "mamba_dt_rank", "linear_num_value_heads", "mask_token_id"),
    **_each(False, "use_mamba_kernels", "use_cache"),
    "linear_num_key_heads": 2,
    "mamba_d_state": 8,
    # special tokens
    **_each(PAD, "pad_token_id"),
    **_each(BOS, "bos_token_id", "cls_token_id", "decoder_start_token_id"),
    **_each(EOS, "eos_token_id", "sep_token_id"),
    # wide weights, no dropout
    **_each(0.2, "initializer_range", "init_std"),
    "embed_init_std": 0.5,
    **_each(0.0, "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate"),
    **_each(0.0, "activation_dropout", "classifier_dropout", "classifier_dropout_prob", "classifier_dropout_rate"),
    **_each(0.0, "resid_pdrop", "embd_pdrop", "attn_pdrop", "emb_pdrop", "hidden_dropout", "embed_dropout"),
    **_each(0.0, "resid_dropout", "seq_classif_dropout", "summary_last_dropout", "summary_first_dropout"),
    **_each(0.0, "residual_dropout", "embedding_dropout", "mlp_dropout", "pooler_dropout", "qa_dropout"),
    **_each(0.0, "lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob", "encoder_layerdrop"),
    **_each(0.0, "decoder_layerdrop", "layerdrop", "drop_path_rate", "router_jitter_noise", "input_jitter_noise"),
}

VISION = {
    **{"hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "intermediate_size": INNER},
    **{"image_size": 32, "patch_size": 8, "num_channels": 3},
}
ALL_HEADS = {"num_key_value_heads": HEADS}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"]}
IMAGE_TOKENS = {"mm_tokens_per_image": 4, "boi_token_index": 120, "eoi_token_index": 121, "image_token_index": 122}


def _known(config_class: type, values: dict[str, Any]) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(config_class)}
    return {name: value for name, value in values.items() if name in fields}


def _text(config_class: type, **special: Any) -> PreTrainedConfig:
    tokens = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "num_labels": NUM_LABELS}
    return config_class(**{**_known(config_class, BY_NAME), **tokens, **special})


def _siglip() -> PreTrainedConfig:
    config_class = CONFIG_MAPPING["siglip_vision_model"]
    return config_class(**_known(config_class, VISION))


def _gemma3(config_class: Any) -> PreTrainedConfig:
    text = _text(config_class.sub_configs["text_config"], **SLIDING)
    return config_class(text_config=text, vision_config=_siglip(), num_labels=NUM_LABELS, **IMAGE_TOKENS)


def _modern_vbert(config_class: Any) -> PreTrainedConfig:
    text = tiny_config("ultrabert" if config_class.model_type == "ultravbert" else "modernbert")
    special = {"num_labels": NUM_LABELS, "image_token_id": 122, "pad_token_id": PAD}
    return config_class(text_config=text, vision_config=_siglip(), **special)


def _qwen3_5(config_class: Any) -> PreTrainedConfig:
    sizes = {"depth": 2, "hidden_size": HIDDEN, "num_heads": HEADS, "intermediate_size": INNER}
    vision = config_class.sub_configs["vision_config"](**sizes, out_hidden_size=HIDDEN, num_position_embeddings=16)
    tokens = {"image_token_id": 122, "video_token_id": 123, "vision_start_token_id": 124, "vision_end_token_id": 125}
    return config_class(text_config=tiny_config("qwen3_5_text"), vision_config=vision, num_labels=NUM_LABELS, **tokens)


def _t5gemma(config_class: Any) -> PreTrainedConfig:
    part = config_class.sub_configs["encoder"]
    tokens = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "num_labels": NUM_LABELS}
    values = {**_known(part, BY_NAME), **SLIDING, **tokens}
    rest = {"vocab_size": VOCABULARY, "dropout_rate": 0.0, "attention_dropout": 0.0}
    return config_class(encoder=part(**values), decoder=part(**values), **rest, **tokens)


def _t5gemma2(config_class: Any) -> PreTrainedConfig:
    encoder, decoder = config_class.sub_configs["encoder"], config_class.sub_configs["decoder"]
    text = _text(encoder.sub_configs["text_config"], **SLIDING)
    rest = {"image_token_index": 122, "eoi_token_index": 121, "dropout_rate": 0.0, "attention_dropout": 0.0}
    return config_class(
        encoder=encoder(text_config=text, vision_config=_siglip(), **IMAGE_TOKENS),
        decoder=_text(decoder, **SLIDING),
        **{"num_labels": NUM_LABELS, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, **rest},
    )


LINEAR = {"layer_types": ["linear_attention", "full_attention"]}
NO_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SPECIAL: dict[str, Any] = {
    "gemma3": _gemma3,
    "modernvbert": _modern_vbert,
    "ultravbert": _modern_vbert,
    "qwen3_5": _qwen3_5,
    "t5gemma": _t5gemma,
    "t5gemma2": _t5gemma2,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "reformer": {
        **{"axial_pos_shape": [4, 4], "axial_pos_embds_dim": [16, 16], "max_position_embeddings": 16},
        **{"attn_layers": ["local", "local"], "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4},
    },
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "xmod": {"default_language": "en_XX"},
    "tapas": {"type_vocab_sizes": [3, 16, 16, 2, 16, 16, 10]},
    "perceiver": {
        **{"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 2},
        **{"num_self_attention_heads": HEADS, "num_cross_attention_heads": HEADS},
    },
    "squeezebert": {"embedding_size": HIDDEN},
    "t5": {"decoder_start_token_id": 0},
    "zamba": {
        **{"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 4, "n_mamba_heads": 2},
        **{"attention_head_dim": 16, "layers_block_type": ["linear_attention", "hybrid"] * 2, **ALL_HEADS},
    },
    "zamba2": {
        **{"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "linear_attention"]},
        **{"n_mamba_heads": 4, "mamba_headdim": 16, "attention_head_dim": 16, "chunk_size": 16, "num_mem_blocks": 1},
        **{"adapter_rank": 4, "hybrid_layer_ids": [1], **ALL_HEADS},
    },
    "longformer": {"attention_window": [4, 4]},
    "roc_bert": {
        **{"pronunciation_vocab_size": 32, "shape_vocab_size": 32},
        **{"pronunciation_embed_dim": 16, "shape_embed_dim": 16},
    },
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "markuplm": {
        **{"tag_pad_id": 10, "subs_pad_id": 20, "max_xpath_tag_unit_embeddings": 16, "max_depth": 4},
        **{"max_xpath_subs_unit_embeddings": 32, "xpath_unit_hidden_size": 8},
    },
    "canine": {"num_hash_buckets": 64, "num_hash_functions": 4, "local_transformer_stride": 8, "downsampling_rate": 4},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1},
    "mobilebert": {"intra_bottleneck_size": 16},
    "mpt": {"n_heads": HEADS},
    "axk2": {**ALL_HEADS, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 64, "gated_norm_rank": 4},
    **_each(ALL_HEADS, "axk1", "deepseek_v2", "deepseek_v3", "minicpm3", "mistral4", "esmc"),
    "cohere_compass_text": {
        **SLIDING,
        "rope_parameters": _each({**NO_ROPE, "mrope_section": [1, 1, 2]}, "full_attention", "sliding_attention"),
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False, "input_size": 32, "patch_size": 8},
    "layoutlm": {"hidden_size": 36},
    "lilt": {"hidden_size": 48},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """The configuration of a tiny model with three classes."""
    config_class, special = CONFIG_MAPPING[model_type], SPECIAL.get(model_type, {})
    return special(config_class) if callable(special) else _text(config_class, **special)


def tiny_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model in evaluation mode, with weights that depend on the seed alone."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(tiny_config(model_type))
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        _draw(module, generator)
    return model.eval()


@torch.no_grad()
def _draw(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, (nn.Linear, Conv1D)):
        inputs = module.weight.shape[1 if isinstance(module, nn.Linear) else 0]
        module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / inputs**0.5)
        if module.bias is not None:
            module.bias.copy_(0.1 * torch.randn(module.bias.shape, generator=generator))
    elif isinstance(module, nn.Embedding):
        module.weight.copy_(0.7 * torch.randn(module.weight.shape, generator=generator))
        if module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
