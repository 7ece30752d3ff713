"""Models for images of 32 and 64 pixels in timm's registry: a first convolution that keeps the resolution.

Import this module, and `timm.create_model("small_resnet18", num_classes=10, in_chans=1)` and everything else that reads
timm's registry knows them. Where timm has the network it is timm's, with a 3x3 first convolution of stride 1 and no
max-pool after it; the rest is built here. There are no weights, so timm refuses `pretrained=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import GoogLeNet, shufflenet_v2_x1_0
from torchvision.models.googlenet import BasicConv2d

Block = Callable[[int, int, int], nn.Module]  # of the channels before and after it, and its stride


class SmallNet(nn.Module):
    """A stem, stages, pooling and fully connected layers, with the attributes and methods that timm's tools use.

    The stages are what `feature_info` lists, so mixing at `hidden:k` mixes what stage k gives.

    Args:
        stem: comes before the first stage and keeps the resolution.
        stages: of each its channels, how many times smaller than the image its output is, and its layers.
        norm: what follows the last stage.
        pool: the side of the map that is left for the fully connected layers.
        hidden: widths of the fully connected layers before the classifier.
        num_classes: 0 leaves the classifier out.
        in_chans: channels of the images.
        drop_rate: dropout in front of the classifier and between the fully connected layers.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        stages: Sequence[tuple[int, int, nn.Sequential]],
        norm: nn.Module | None = None,
        *,
        pool: int = 1,
        hidden: Sequence[int] = (),
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.stem = stem
        self.stages = nn.Sequential(*[layers for _, _, layers in stages])
        self.norm = norm or nn.Identity()
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": f"stages.{index}"}
            for index, (channels, reduction, _) in enumerate(stages)
        ]
        self.num_features = stages[-1][0]
        self.pool = nn.AdaptiveAvgPool2d(pool)
        widths = [self.num_features * pool**2, *hidden]
        self.neck = nn.Sequential()
        for before, after in pairwise(widths):
            self.neck.extend([nn.Linear(before, after), nn.ReLU(inplace=True), nn.Dropout(drop_rate)])
        if not hidden:
            self.neck.append(nn.Dropout(drop_rate))
        self.head_hidden_size = widths[-1]
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """The feature map behind the last stage."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits of a feature map, or what the classifier would read."""
        x = self.neck(self.pool(x).flatten(1))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; none for 0 classes. Pooling is always by the average."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool={global_pool!r} is unknown to {type(self).__name__}: leave it out.")
        self.num_classes = num_classes
        weight = next(self.parameters())
        self.fc = (
            nn.Linear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype)
            if num_classes
            else nn.Identity()
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which parameters make up a layer, for learning rates that decay by layer."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem", "blocks": [(blocks, None), (r"^norm", (99999,))]}  # the norm goes with the last block


class PreActBlock(nn.Module):
    """BatchNorm and ReLU in front of both convolutions (He et al., 2016, https://arxiv.org/abs/1603.05027).

    A projection on the shortcut reads the activated input.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1, self.conv2 = _conv(before, after, stride), _conv(after, after)
        same = before == after and stride == 1
        self.shortcut = None if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(active))))


# ---- how they are built ----------------------------------------------------------------------------------------


def _conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False)


def _stem(in_chans: int, channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(in_chans, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _basic_block(before: int, after: int, stride: int) -> nn.Module:
    """timm's block of ResNet-18, with a projection where the shape changes."""
    if before == after and stride == 1:
        return BasicBlock(before, after)
    projection = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return BasicBlock(before, after, stride, projection)


def _residual_stages(
    block: Block, before: int, widths: Sequence[int], depths: Sequence[int]
) -> list[tuple[int, int, nn.Sequential]]:
    """Stages of blocks; all but the first halve the resolution."""
    stages = []
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        first = block(before, width, 1 if index == 0 else 2)
        stages.append((width, 2**index, nn.Sequential(first, *[block(width, width, 1) for _ in range(depth - 1)])))
        before = width
    return stages


def _preact(stem: int, widths: Sequence[int], depths: Sequence[int], *, in_chans: int, **kwargs: Any) -> SmallNet:
    norm = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
    stages = _residual_stages(PreActBlock, stem, widths, depths)
    return SmallNet(nn.Sequential(_conv(in_chans, stem)), stages, norm, in_chans=in_chans, **kwargs)


def _thin_resnet(depth: int, *, in_chans: int, **kwargs: Any) -> SmallNet:
    stages = _residual_stages(_basic_block, 16, (16, 32, 64), (depth,) * 3)
    return SmallNet(_stem(in_chans, 16), stages, in_chans=in_chans, **kwargs)


def _vgg(depths: Sequence[int], *, in_chans: int, **kwargs: Any) -> SmallNet:
    """Convolutions with BatchNorm; a stage ends with a max-pool, and the first convolution is the stem."""

    def layers(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    stages: list[tuple[int, int, nn.Sequential]] = []
    before = 64
    for index, (width, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
        stage = nn.Sequential()
        for _ in range(depth - 1 if index == 0 else depth):
            stage.extend(layers(before, width))
            before = width
        stages.append((width, 2 ** (index + 1), stage.append(nn.MaxPool2d(2))))
    return SmallNet(nn.Sequential(*layers(in_chans, 64)), stages, in_chans=in_chans, **kwargs)


def _lenet(*, in_chans: int, **kwargs: Any) -> SmallNet:
    stem = nn.Sequential(nn.Conv2d(in_chans, 6, 5), nn.ReLU(inplace=True))
    stages = [
        (6, 2, nn.Sequential(nn.MaxPool2d(2))),
        (16, 4, nn.Sequential(nn.Conv2d(6, 16, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2))),
    ]
    return SmallNet(stem, stages, pool=5, hidden=(120, 84), in_chans=in_chans, **kwargs)


def _alexnet(*, in_chans: int, drop_rate: float = 0.5, **kwargs: Any) -> SmallNet:
    def layers(before: int, after: int, kernel: int = 3) -> list[nn.Module]:
        return [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]

    last = [*layers(192, 384), *layers(384, 256), *layers(256, 256)]
    stages = [
        (64, 2, nn.Sequential(nn.MaxPool2d(3, 2))),
        (192, 4, nn.Sequential(*layers(64, 192, 5), nn.MaxPool2d(3, 2))),
        (256, 8, nn.Sequential(*last, nn.MaxPool2d(3, 2))),
    ]
    stem, hidden = nn.Sequential(*layers(in_chans, 64)), (4096, 4096)
    return SmallNet(stem, stages, pool=3, hidden=hidden, in_chans=in_chans, drop_rate=drop_rate, **kwargs)


def _shufflenet(*, in_chans: int, **kwargs: Any) -> SmallNet:
    net: Any = shufflenet_v2_x1_0(weights=None)
    stages = [(116, 2, net.stage2), (232, 4, net.stage3), (1024, 8, nn.Sequential(*net.stage4, net.conv5))]
    return SmallNet(_stem(in_chans, 24), stages, in_chans=in_chans, **kwargs)


def _googlenet(*, in_chans: int, drop_rate: float = 0.2, **kwargs: Any) -> SmallNet:
    net: Any = GoogLeNet(aux_logits=False, init_weights=False)
    stem = nn.Sequential(BasicConv2d(in_chans, 64, kernel_size=3, padding=1), net.conv2, net.conv3)
    fourth = [net.inception4a, net.inception4b, net.inception4c, net.inception4d, net.inception4e]
    stages = [
        (480, 1, nn.Sequential(net.inception3a, net.inception3b)),
        (832, 2, nn.Sequential(net.maxpool3, *fourth)),
        (1024, 4, nn.Sequential(net.maxpool4, net.inception5a, net.inception5b)),
    ]
    return SmallNet(stem, stages, in_chans=in_chans, drop_rate=drop_rate, **kwargs)


def _timm(architecture: str, conv: str, pool: str = "", **kwargs: Any) -> Any:
    """A network of timm with a 3x3 first convolution of stride 1, and nothing in the place of `pool`."""
    model: Any = timm.create_model(architecture, **kwargs)
    old = model.get_submodule(conv)
    new = _conv(old.in_channels, old.out_channels).to(old.weight)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(conv, new)
    if pool:
        model.set_submodule(pool, nn.Identity())
    for row in model.feature_info:
        row["reduction"] = max(row["reduction"] // 4, 1)
    return model


def _mobilenetv2(**kwargs: Any) -> nn.Module:
    """It has no max-pool: its second step down is the stride of a block."""
    model = _timm("mobilenetv2_100", "conv_stem", **kwargs)
    model.blocks[1][0].conv_dw.stride = (1, 1)
    return model


_resnet = partial(_timm, conv="conv1", pool="maxpool")


def _create(name: str, build: Callable[..., nn.Module], pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    """What timm does with the arguments of `create_model`, around ``build(num_classes=, in_chans=, ...)``."""
    place = {key: kwargs.pop(key) for key in ("device", "dtype") if key in kwargs}
    model = build_model_with_cfg(build, name, pretrained, feature_cfg={"flatten_sequential": True}, **kwargs)
    return model.to(**place)


def _cfg(first_conv: str, classifier: str) -> dict[str, Any]:
    half = (0.5, 0.5, 0.5)
    return {
        **{"num_classes": 1000, "input_size": (3, 32, 32), "pool_size": None, "crop_pct": 1.0, "mean": half},
        **{"std": half, "interpolation": "bilinear", "first_conv": first_conv, "classifier": classifier},
    }


_PLACES = {  # of the first convolution and the classifier
    ("stem.0", "fc"): "preact_resnet18 preact_resnet34 wrn16_8 wrn28_10 wrn28_12 resnet8 resnet20 resnet32 resnet56 "
    "lenet alexnet vgg11 vgg16 vgg19 shufflenetv2",
    ("stem.0.conv", "fc"): "inception",
    ("conv1", "fc"): "resnet18 resnet34 resnet50 resnet152 resnext50_32x4d",
    ("conv_stem", "classifier"): "mobilenetv2",
    ("features.conv0", "classifier"): "densenet121",
}
default_cfgs = generate_default_cfgs(  # timm reads this name
    {f"small_{name}": _cfg(*places) for places, names in _PLACES.items() for name in names.split()}
)

# ---- the registry ----------------------------------------------------------------------------------------------


@register_model
def small_preact_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PreAct ResNet-18 (He et al., 2016, https://arxiv.org/abs/1603.05027), with a last BatchNorm and ReLU."""
    build = partial(_preact, 64, (64, 128, 256, 512), (2, 2, 2, 2))
    return _create("small_preact_resnet18", build, pretrained, kwargs)


@register_model
def small_preact_resnet34(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """PreAct ResNet-34 (He et al., 2016, https://arxiv.org/abs/1603.05027), with a last BatchNorm and ReLU."""
    build = partial(_preact, 64, (64, 128, 256, 512), (3, 4, 6, 3))
    return _create("small_preact_resnet34", build, pretrained, kwargs)


@register_model
def small_wrn16_8(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-16-8 without dropout in its blocks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146)."""
    return _create("small_wrn16_8", partial(_preact, 16, (128, 256, 512), (2, 2, 2)), pretrained, kwargs)


@register_model
def small_wrn28_10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-28-10 without dropout in its blocks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146)."""
    return _create("small_wrn28_10", partial(_preact, 16, (160, 320, 640), (4, 4, 4)), pretrained, kwargs)


@register_model
def small_wrn28_12(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """WRN-28-12 without dropout in its blocks (Zagoruyko and Komodakis, 2016, https://arxiv.org/abs/1605.07146)."""
    return _create("small_wrn28_12", partial(_preact, 16, (192, 384, 768), (4, 4, 4)), pretrained, kwargs)


@register_model
def small_resnet8(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The ResNet for CIFAR with n = 1 (He et al., 2016), with projections as shortcuts: trains on a CPU."""
    return _create("small_resnet8", partial(_thin_resnet, 1), pretrained, kwargs)


@register_model
def small_resnet20(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-20 for CIFAR (He et al., 2016, https://arxiv.org/abs/1512.03385), with projections as shortcuts."""
    return _create("small_resnet20", partial(_thin_resnet, 3), pretrained, kwargs)


@register_model
def small_resnet32(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-32 for CIFAR (He et al., 2016, https://arxiv.org/abs/1512.03385), with projections as shortcuts."""
    return _create("small_resnet32", partial(_thin_resnet, 5), pretrained, kwargs)


@register_model
def small_resnet56(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-56 for CIFAR (He et al., 2016, https://arxiv.org/abs/1512.03385), with projections as shortcuts."""
    return _create("small_resnet56", partial(_thin_resnet, 9), pretrained, kwargs)


@register_model
def small_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNet-18 (He et al., 2016, https://arxiv.org/abs/1512.03385)."""
    return _create("small_resnet18", partial(_resnet, "resnet18"), pretrained, kwargs)


@register_model
def small_resnet34(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNet-34 (He et al., 2016, https://arxiv.org/abs/1512.03385)."""
    return _create("small_resnet34", partial(_resnet, "resnet34"), pretrained, kwargs)


@register_model
def small_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNet-50 (He et al., 2016, https://arxiv.org/abs/1512.03385)."""
    return _create("small_resnet50", partial(_resnet, "resnet50"), pretrained, kwargs)


@register_model
def small_resnet152(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNet-152 (He et al., 2016, https://arxiv.org/abs/1512.03385)."""
    return _create("small_resnet152", partial(_resnet, "resnet152"), pretrained, kwargs)


@register_model
def small_resnext50_32x4d(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ResNeXt-50, 32x4d (Xie et al., 2017, https://arxiv.org/abs/1611.05431)."""
    return _create("small_resnext50_32x4d", partial(_resnet, "resnext50_32x4d"), pretrained, kwargs)


@register_model
def small_densenet121(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's DenseNet-121 (Huang et al., 2017, https://arxiv.org/abs/1608.06993)."""
    build = partial(_timm, "densenet121", conv="features.conv0", pool="features.pool0")
    return _create("small_densenet121", build, pretrained, kwargs)


@register_model
def small_mobilenetv2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's MobileNetV2 (Sandler et al., 2018, https://arxiv.org/abs/1801.04381)."""
    return _create("small_mobilenetv2", _mobilenetv2, pretrained, kwargs)


@register_model
def small_shufflenetv2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """torchvision's ShuffleNetV2 1x (Ma et al., 2018, https://arxiv.org/abs/1807.11164)."""
    return _create("small_shufflenetv2", _shufflenet, pretrained, kwargs)


@register_model
def small_inception(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """torchvision's GoogLeNet without its side branches (Szegedy et al., 2015, https://arxiv.org/abs/1409.4842)."""
    return _create("small_inception", _googlenet, pretrained, kwargs)


@register_model
def small_vgg11(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-11 with BatchNorm and one linear layer (Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556)."""
    return _create("small_vgg11", partial(_vgg, (1, 1, 2, 2, 2)), pretrained, kwargs)


@register_model
def small_vgg16(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-16 with BatchNorm and one linear layer (Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556)."""
    return _create("small_vgg16", partial(_vgg, (2, 2, 3, 3, 3)), pretrained, kwargs)


@register_model
def small_vgg19(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-19 with BatchNorm and one linear layer (Simonyan and Zisserman, 2015, https://arxiv.org/abs/1409.1556)."""
    return _create("small_vgg19", partial(_vgg, (2, 2, 4, 4, 4)), pretrained, kwargs)


@register_model
def small_alexnet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """AlexNet in torchvision's widths (Krizhevsky, 2014, https://arxiv.org/abs/1404.5997); its pools are its stages."""
    return _create("small_alexnet", _alexnet, pretrained, kwargs)


@register_model
def small_lenet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """LeNet-5 with ReLU and max-pooling (LeCun et al., 1998); its 5x5 convolutions are not padded."""
    return _create("small_lenet", _lenet, pretrained, kwargs)
