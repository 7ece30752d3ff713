"""Does LogitMix hold on a model of images? The checks behind test_image_architectures.py and its table in docs.

cd tests; python -m helpers.image_architectures        writes docs/image_architectures.md

Small random models of every image-classification class of transformers, and one of every module of timm.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from helpers.levels import columns, verdicts
from helpers.training import arguments
from hf_logitmix import MixPlan, MixTrainer, mixed_forward

BATCH, NUM_LABELS = 4, 3
TOLERANCE = 2e-3  # of the spread of the logits
LEAST_SPREAD = 1e-3  # of the logits of different images, without which a comparison tells nothing
PARTNER = torch.tensor([1, 2, 3, 0])
PLAN = MixPlan(PARTNER, torch.tensor([0.3, 0.8, 0.6, 0.1]))

CLASSES: dict[str, str] = {  # of every class, its model type
    name: model_type
    for model_type, names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items()
    for name in (names if isinstance(names, tuple) else (names,))
}
NOT_TRIED = {
    "DinatForImageClassification": "needs natten",
    "ShieldGemma2ForImageClassification": "scores a prompt with its image by two tokens; it has no classes of its own",
}
REFUSED = {
    "PPLCNetForImageClassification": "names its logits `last_hidden_state` and takes no labels",
    "Siglip2ForImageClassification": "reads patches [B, N, C * P * P] with a mask, not images [B, C, H, W]",
}

# ---- tiny configurations ---------------------------------------------------------------------------------------

BY_NAME: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8, "encoder_stride": 8, "initializer_range": 0.2},
}
VISION = {key: value for key, value in BY_NAME.items() if key not in ("encoder_stride", "initializer_range")}
TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
TEXT |= {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
TWO_TOWERS = {"vision_config": VISION, "text_config": TEXT}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
PYRAMID = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4]}
PATCHES = {"patch_sizes": [7, 3, 3, 3]}
WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "patch_size": 4}
WITHOUT_DROPOUT = {"classifier_dropout_prob": 0.0}
SPECIAL: dict[str, dict[str, Any]] = {
    "bit": {**STAGES, "embedding_size": 8, "num_groups": 4},
    "clip": TWO_TOWERS,
    "convnext": {**STAGES, "num_stages": 2, "patch_size": 4},
    "convnextv2": {**STAGES, "num_stages": 2, "patch_size": 4},
    "cvt": {"embed_dim": [8, 16, 24], "num_heads": [1, 2, 3], "depth": [1, 2, 3]},
    "donut-swin": WINDOWS,
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320, "dropout_rate": 0.0},
    "focalnet": {
        **{"embed_dim": 8, "depths": [1, 1], "hidden_sizes": [8, 16], "patch_size": 4},
        **{"focal_levels": [1, 1], "focal_windows": [3, 3]},
    },
    "hgnet_v2": {
        **{"embedding_size": 8, "depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "stem_channels": [3, 4, 8]},
        **{"stage_in_channels": [8, 8, 16, 24], "stage_mid_channels": [4] * 4, "stage_out_channels": [8, 16, 24, 32]},
        **{"stage_num_blocks": [1] * 4, "stage_numb_of_layers": [2] * 4},
    },
    "hiera": {
        **{"image_size": [32, 32], "patch_size": [7, 7], "embed_dim": 8, "depths": [1, 1, 1, 1]},
        **{"num_heads": [1, 2, 4, 8]},
    },
    "imagegpt": {"vocab_size": 65, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "levit": {
        **{"patch_size": 16, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1]},
        **{"key_dim": [8, 8, 8]},
    },
    "metaclip_2": TWO_TOWERS,
    "mobilenet_v1": {"depth_multiplier": 0.25, **WITHOUT_DROPOUT},
    "mobilenet_v2": {"depth_multiplier": 0.25, **WITHOUT_DROPOUT},
    "mobilevit": {
        **{"patch_size": 2, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32]},
        **WITHOUT_DROPOUT,
    },
    "mobilevitv2": {
        **{"patch_size": 2, "base_attn_unit_dims": [32, 48, 64], "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]},
        **WITHOUT_DROPOUT,
    },
    "perceiver": {
        **{"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2, "num_self_attention_heads": 4},
        **{"num_cross_attention_heads": 1},
    },
    "poolformer": {**PATCHES, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    "pp_lcnet": {"scale": 0.25, "class_expand": 32, "hidden_dropout_prob": 0.0},
    "pvt": PYRAMID | {"patch_sizes": [4, 2, 2, 2]},
    "pvt_v2": {**PYRAMID, **PATCHES},
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 8},
    "resnet": {**STAGES, "embedding_size": 8},
    "segformer": {**PYRAMID, **PATCHES, "decoder_hidden_size": 16},
    "siglip": TWO_TOWERS,
    "siglip2": {"vision_config": {**VISION, "num_patches": 16}, "text_config": TEXT},
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32]},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "textnet": {
        **{"image_size": [32, 32], "stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 24]},
        **{"conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]]},
        **{"conv_layer_strides": [[2], [2], [2], [1]]},
    },
    "timm_wrapper": {"architecture": "test_resnet"},
}
# The width of the inputs that each preprocessor of a perceiver makes.
PERCEIVER_WIDTHS = {"Learned": 512, "Fourier": 261, "ConvProcessing": 322}
SIZES = {"MobileViTV2ForImageClassification": 64}  # of images, where 32 is too small

# ---- timm ------------------------------------------------------------------------------------------------------

TIMM: dict[str, tuple[str, int, dict[str, Any]]] = {  # of every module: a small model, images, arguments
    "beit": ("beit_base_patch16_224", 32, {"img_size": 32, "depth": 2}),
    "byoanet": ("lambda_resnet26t", 32, {}),
    "byobnet": ("test_byobnet", 32, {"img_size": 32}),
    "cait": ("cait_xxs24_224", 32, {"img_size": 32, "depth": 2}),
    "coat": ("coat_tiny", 32, {"img_size": 32}),
    "convit": ("convit_tiny", 32, {"img_size": 32}),
    "convmixer": ("convmixer_768_32", 32, {}),
    "convnext": ("test_convnext", 32, {}),
    "cpubone": ("cpubone_nano", 32, {}),
    "crossvit": ("crossvit_tiny_240", 32, {}),
    "csatv2": ("csatv2", 64, {}),
    "cspnet": ("cs3darknet_focus_s", 32, {}),
    "cspnext": ("cspnext_tiny", 32, {}),
    "davit": ("davit_tiny", 32, {"depths": [1, 1, 1, 1]}),
    "deepseek_vit": ("deepseek_vit_412m", 42, {"img_size": 42, "depth": 2}),
    "deit": ("deit_tiny_patch16_224", 32, {"img_size": 32}),
    "densenet": ("densenet121", 32, {}),
    "dla": ("dla46x_c", 32, {}),
    "dpn": ("dpn48b", 32, {}),
    "edgenext": ("edgenext_xx_small", 32, {}),
    "efficientformer": ("efficientformer_l1", 224, {"img_size": 224, "depths": [1, 1, 1, 1]}),
    "efficientformer_v2": ("efficientformerv2_s0", 32, {"img_size": 32}),
    "efficientnet": ("test_efficientnet", 32, {}),
    "efficientvim": ("efficientvim_m1", 32, {}),
    "efficientvit_mit": ("efficientvit_b0", 32, {}),
    "efficientvit_msra": ("efficientvit_m0", 32, {"img_size": 32}),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", 32, {"img_size": 32}),
    "fasternet": ("fasternet_t0", 32, {}),
    "fastvit": ("fastvit_t8", 32, {}),
    "focalnet": ("focalnet_tiny_srf", 32, {}),
    "gcvit": ("gcvit_xxtiny", 32, {"img_size": 32}),
    "gemma4_vit": ("gemma4_vit_167m", 32, {"img_size": 32, "depth": 2, "position_embedding_size": 64}),
    "ghostnet": ("ghostnet_050", 32, {}),
    "hardcorenas": ("hardcorenas_b", 32, {}),
    "hgnet": ("hgnetv2_b0", 32, {}),
    "hiera": ("hiera_tiny_224", 32, {"img_size": 32, "stages": [1, 1, 1, 1]}),
    "hieradet_sam2": ("sam2_hiera_tiny", 32, {"stages": [1, 1, 1, 1]}),
    "hrnet": ("hrnet_w18_small", 32, {}),
    "iformer": ("iformer_t", 32, {}),
    "inception_next": ("inception_next_atto", 32, {}),
    "inception_resnet_v2": ("inception_resnet_v2", 96, {}),
    "inception_v3": ("inception_v3", 96, {}),
    "inception_v4": ("inception_v4", 96, {}),
    "lcnetv2": ("lcnetv2_small", 32, {}),
    "levit": ("levit_128s", 32, {"img_size": 32}),
    "lowformer": ("lowformer_b0", 32, {}),
    "mambaout": ("test_mambaout", 32, {}),
    "maxxvit": ("test_coatnet", 32, {"img_size": 32}),
    "metaformer": ("poolformerv2_s12", 32, {}),
    "mlp_mixer": ("gmlp_ti16_224", 32, {"img_size": 32}),
    "mobilenetv3": ("lcnet_035", 32, {}),
    "mobilenetv5": ("mobilenetv5_base", 32, {}),
    "mobilevit": ("mobilevit_xxs", 32, {"img_size": 32}),
    "mvitv2": ("mvitv2_tiny", 32, {"img_size": 32}),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", 32, {"img_size": 32, "depth": 2}),
    "nasnet": ("nasnetalarge", 32, {}),
    "nest": ("nest_tiny", 32, {"img_size": 32}),
    "nextvit": ("nextvit_small", 32, {}),
    "nfnet": ("test_nfnet", 32, {}),
    "pit": ("pit_ti_224", 32, {"img_size": 32}),
    "pnasnet": ("pnasnet5large", 32, {}),
    "pvt_v2": ("pvt_v2_b0", 32, {}),
    "qwen3_vit": ("qwen3_vit_88m", 32, {"img_size": 32, "depth": 2}),
    "rdnet": ("rdnet_tiny", 32, {}),
    "regnet": ("regnetx_002", 32, {}),
    "repghost": ("repghostnet_050", 32, {}),
    "repvit": ("repvit_m1", 32, {"img_size": 32}),
    "res2net": ("res2next50", 32, {"layers": [1, 1, 1, 1]}),
    "resnest": ("resnest14d", 32, {}),
    "resnet": ("test_resnet", 32, {}),
    "resnetv2": ("resnetv2_18", 32, {"layers": [1, 1, 1, 1]}),
    "rexnet": ("rexnet_100", 32, {}),
    "selecsls": ("selecsls42", 32, {}),
    "senet": ("legacy_seresnet18", 32, {"layers": [1, 1, 1, 1]}),
    "sequencer": ("sequencer2d_s", 32, {"img_size": 32, "layers": [1, 1, 1, 1]}),
    "shvit": ("shvit_s1", 32, {}),
    "sknet": ("skresnet18", 32, {"layers": [1, 1, 1, 1]}),
    "starnet": ("starnet_s050", 32, {}),
    "swiftformer": ("swiftformer_xs", 32, {"img_size": 32}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 32, {"img_size": 32, "depths": [1, 1, 1]}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 32, {"img_size": 32, "depths": [1, 1, 1]}),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 32, {"img_size": 32, "depths": [1, 1, 1]}),
    "tiny_vit": ("tiny_vit_5m_224", 32, {}),
    "tnt": ("tnt_s_legacy_patch16_224", 32, {"img_size": 32, "depth": 2}),
    "tresnet": ("tresnet_m", 32, {"layers": [1, 1, 1, 1]}),
    "twins": ("twins_svt_small", 32, {"img_size": 32, "depths": [1, 1, 1, 1]}),
    "vgg": ("vgg11", 32, {"mlp_ratio": 0.02}),
    "visformer": ("visformer_tiny", 32, {"img_size": 32, "depth": 2}),
    "vision_transformer": ("test_vit", 32, {"img_size": 32}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 32, {"img_size": 32}),
    "vision_transformer_relpos": ("test_vit_relpos", 32, {"img_size": 32}),
    "vision_transformer_sam": ("samvit_base_patch16_224", 32, {"img_size": 32, "depth": 2}),
    "vitamin": ("vitamin_small_224", 32, {"img_size": 32, "depth": 2}),
    "volo": ("volo_d1_224", 32, {"img_size": 32}),
    "vovnet": ("ese_vovnet19b_slim_dw", 32, {}),
    "xception": ("legacy_xception", 32, {}),
    "xception_aligned": ("xception41p", 32, {}),
    "xcit": ("xcit_nano_12_p8_224", 32, {"img_size": 32}),
}
BARE = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"]  # tried without the wrapper of transformers

# ---- models ----------------------------------------------------------------------------------------------------


def tiny_model(name: str) -> PreTrainedModel:
    """A tiny model of a class of transformers in evaluation mode; its weights depend on nothing but the class."""
    model_type = CLASSES[name]
    config_class = CONFIG_MAPPING[model_type]
    fields = {field.name: field.default for field in dataclasses.fields(config_class)}
    values = {key: value for key, value in BY_NAME.items() if key in fields and not isinstance(fields[key], tuple)}
    values |= SPECIAL.get(model_type, {})
    if model_type == "perceiver":
        values["d_model"] = PERCEIVER_WIDTHS[name.removeprefix("PerceiverForImageClassification")]
    torch.manual_seed(0)
    return draw(getattr(transformers, name)(config_class(**values, num_labels=NUM_LABELS)))


def timm_model(module: str) -> PreTrainedModel:
    """The model of a module of timm, with random weights, in the wrapper of transformers."""
    architecture, _, options = TIMM[module]
    config = transformers.TimmWrapperConfig(architecture=architecture, num_labels=NUM_LABELS, model_args=options)
    torch.manual_seed(0)
    return draw(transformers.TimmWrapperForImageClassification(config))


class Bare(nn.Module):
    """All that a module needs to be taken for a model of images, and to be trained."""

    main_input_name = "pixel_values"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, transformers.PreTrainedConfig(num_labels=NUM_LABELS)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values)


@torch.no_grad()
def draw(model: Any) -> Any:
    """Weights wide enough that different images give clearly different logits, and no layer that starts as a no-op."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and min(parameter.shape) > 0 and ("weight" in name or not parameter.any()):
            parameter.normal_(0, (parameter.numel() / len(parameter)) ** -0.5)
        elif not name.endswith("bias") and parameter.numel() and parameter.abs().max() < 0.01:
            parameter.fill_(1.0)  # the scale of a layer
    return model.eval()


@torch.no_grad()
def settle(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Running statistics as after training, without which deep models of BatchNorm tell no image from another."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.train()
            norm.momentum = None
            norm.reset_running_stats()
        model(**inputs)
        for norm in norms:
            norm.momentum = 0.1
    model.eval()


# ---- the properties --------------------------------------------------------------------------------------------


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of how much the logits of different images differ."""
    return ((a - b).abs().max() / b.std(0).max()).item()


def constant(lam: float) -> MixPlan:
    return MixPlan(PARTNER, torch.full((BATCH,), lam))


def images(size: int = 32, channels: int = 3) -> Tensor:
    """Random colours in a coarse grid, and noise: strides and pooling leave a difference of either kind."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(BATCH, channels, 4, 4, generator=generator)
    noise = torch.randn(BATCH, channels, size, size, generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode="nearest") + 0.5 * noise


def inputs_of(model: nn.Module, size: int = 32) -> dict[str, Tensor]:
    """A batch for the model: images, the colours of 16 pixels as ids, or the patches of Siglip2."""
    model_type = getattr(getattr(model, "config", None), "model_type", "")
    if model_type == "imagegpt":
        return {"input_ids": torch.randint(0, 64, (BATCH, 16), generator=torch.Generator().manual_seed(0))}
    if model_type == "siglip2":
        patches = images(size).unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(BATCH, 16, -1)
        shapes = torch.tensor([[4, 4]] * BATCH)
        return {"pixel_values": patches, "pixel_attention_mask": torch.ones(BATCH, 16), "spatial_shapes": shapes}
    return {"pixel_values": images(size)}


def logits_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output = model(**inputs)
    return output if isinstance(output, Tensor) else output.logits


def by_hand(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """The logits of images that are mixed before the model sees them (of ids: of their embeddings)."""
    if "input_ids" in inputs:
        words, lam = model.get_input_embeddings()(inputs["input_ids"]), PLAN.lam.reshape(-1, 1, 1)
        return logits_of(model, {"inputs_embeds": lam * words + (1 - lam) * words[PARTNER]})
    pixels, lam = inputs["pixel_values"], PLAN.lam.reshape(-1, 1, 1, 1)
    return logits_of(model, {"pixel_values": lam * pixels + (1 - lam) * pixels[PARTNER]})


@torch.no_grad()
def check_inputs(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Mixed at the input: the clean half is a plain forward, the mixed half the model on inputs mixed by hand.

    Returns:
        the clean logits.
    """
    settle(model, inputs)
    clean = logits_of(model, inputs)
    assert clean.shape == (BATCH, NUM_LABELS)
    spread = clean.std(0).max().item()
    assert math.isfinite(spread), "logits are not finite"
    assert spread > LEAST_SPREAD, f"logits of different images differ by {spread:.1e} only: nothing can be compared"
    output = mixed_forward(model, inputs, PLAN, rows="both")
    gaps = {
        "clean logits": gap(output.logits, clean),
        "mixed logits": gap(output.mixed_logits, by_hand(model, inputs)),
        "lam = 1": gap(mixed_forward(model, inputs, constant(1.0)).mixed_logits, clean),
        "lam = 0": gap(mixed_forward(model, inputs, constant(0.0)).mixed_logits, clean[PARTNER]),
    }
    worst = max(gaps, key=lambda name: gaps[name])
    assert gaps[worst] < TOLERANCE, f"{worst} off by {gaps[worst]:.2g} of the spread"
    return clean


def takes_no_labels(model: nn.Module) -> bool:
    """Then Trainer drops the column `labels` unless it is told the name."""
    return "labels" not in inspect.signature(model.forward).parameters


def train_a_step(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """One step of SGD with LogitMix in training mode: a finite loss, and parameters that change and stay finite."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    data = [{**{key: value[i] for key, value in inputs.items()}, "labels": i % NUM_LABELS} for i in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        names = ["labels"] if takes_no_labels(model) else None
        options = {"max_steps": 1, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3, "label_names": names}
        args = arguments(folder, **options)
        result = MixTrainer(model=model, args=args, method="logitmix", train_dataset=data).train()
    assert model.training
    assert result.global_step == 1
    assert math.isfinite(result.training_loss), f"the loss is {result.training_loss}"
    after = list(model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), "no parameter changed"
    assert all(torch.isfinite(parameter).all() for parameter in after), "parameters are not finite"


def check(model: nn.Module, size: int = 32) -> str:
    """Everything that must hold, and what holds at which level: two columns of a table."""
    inputs = inputs_of(model, size)
    clean = check_inputs(model, inputs)
    found = columns(verdicts(model, inputs, clean))
    train_a_step(model, inputs)
    return found


def row_of_class(name: str) -> str:
    """A row of the first table in the docs; anything that does not hold raises."""
    if name in NOT_TRIED:
        return f"| {name} | not tried: {NOT_TRIED[name]} | | |"
    model = tiny_model(name)
    if name in REFUSED:
        try:
            mixed_forward(model, inputs_of(model), PLAN)
        except (ValueError, KeyError):
            return f"| {name} | refused: {REFUSED[name]} | | |"
        raise AssertionError(f"{name} is no longer refused: take it out of REFUSED")
    how = "holds"
    if model.main_input_name == "inputs":
        model.main_input_name = "pixel_values"
        how = 'holds, after `model.main_input_name = "pixel_values"`'
    elif model.main_input_name == "input_ids":
        how = "holds, with colours as ids, whose embeddings are mixed"
    elif takes_no_labels(model):
        how = "holds, with `label_names=['labels']`"
    return f"| {name} | {how} | {check(model, SIZES.get(name, 32))} |"


def row_of_timm(module: str) -> str:
    """A row of the second table in the docs; anything that does not hold raises."""
    architecture, size, _ = TIMM[module]
    return f"| {module} | {architecture} | holds | {check(timm_model(module), size)} |"


INTRODUCTION = """# Models of images

Written by `python -m helpers.image_architectures` in tests/ with transformers {version}: {tried} of the {known} classes
for image classification were built small and random and tried, and on all of them LogitMix trains and every property
holds at the pixels: the clean half is a plain forward; the mixed half is the model on images that are mixed before it
sees them; lam = 1 gives an image's own logits and lam = 0 its partner's.

Every level was tried, with `rows="both"` and `rows="mixed"` (`embedding` is the pixels): images mixed with lam = 1 must
have their own logits, with lam = 0 their partner's, and the clean half those of a plain forward. Where that does not
hold, the rehearsal before training refuses the level. Models without `hidden:k` have no one list of layers, those
without `pooled` no linear layer as their head. At a level that is called linear the logits of what is mixed are the
mixed logits by themselves, so that the similarity of LogitMix is zero there; MixTrainer warns.

| class | pixels | levels that hold | levels that do not |
| --- | --- | --- | --- |
"""
TIMM_INTRODUCTION = """
## timm

The same with timm {version} on a model of every module, in transformers' `TimmWrapperForImageClassification`: all of it
holds at the pixels of {tried} of the {known} modules.

| module | model | pixels | levels that hold | levels that do not |
| --- | --- | --- | --- | --- |
"""


def holds(row: str) -> bool:
    return "| holds" in row


def main() -> int:
    """Try every class and every module and write the tables."""
    import timm

    gc.freeze()  # every training run starts with a garbage collection
    transformers.utils.logging.set_verbosity_error()
    text = ""
    for introduction, version, names, row_of in (
        (INTRODUCTION, transformers.__version__, list(CLASSES), row_of_class),
        (TIMM_INTRODUCTION, timm.__version__, timm.list_modules(), row_of_timm),
    ):
        rows = [row_of(name) for name in tqdm(names)]
        text += introduction.format(version=version, tried=sum(map(holds, rows)), known=len(rows))
        text += "\n".join(rows) + "\n"
    path = Path(__file__).parents[2] / "docs" / "image_architectures.md"
    path.write_text(text)
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
