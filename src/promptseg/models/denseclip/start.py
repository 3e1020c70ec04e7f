"""What training starts from: CLIP's published towers, their positions carried to other grids (DenseCLIP code, ``init_weights``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import WeightsError
from ...nn.conversion import to_official
from ...nn.positions import resize_table
from .core import DenseClip
from .keys import SHARED

IMAGE, TEXT = "backbone.", "text_encoder."
SCALARS = ("input_resolution", "context_length", "vocab_size", "logit_scale")  # of CLIP's file, of which nothing here makes use


@dataclass(frozen=True, slots=True)
class Start:
    """Published names: ``missing`` ones keep their random start, ``unexpected`` ones are CLIP's without a place here."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def start_from_clip(model: DenseClip, clip: Mapping[str, Tensor], *, partial: bool = False) -> Start:
    """Fill both towers of ``model`` from OpenAI's file ``clip``.

    What CLIP does not have stays: a transformer's levels, the context decoder, pyramid and head. ``partial``: so does whatever else the
    file lacks (the published ResNet-101 baseline starts from the ResNet-50 file).

    Raises:
        WeightsError: another network's file: a tensor of a tower is missing or of another shape.
    """
    ours = to_official(SHARED, model.state_dict(), partial=True)  # the model's own memory under published names
    towers = {name: tensor for name, tensor in ours.items() if name.startswith((IMAGE, TEXT)) and not name.endswith("num_batches_tracked")}
    given = {_place(name): tensor for name, tensor in clip.items() if name not in SCALARS and not name.endswith("num_batches_tracked")}
    if model.text is None:
        given = {name: tensor for name, tensor in given.items() if name.startswith(IMAGE)}
    missing = [name for name in towers if name not in given]
    fitted = {name: _fitted(name, given[name], tensor) for name, tensor in towers.items() if name in given}
    misshaped = [f"{name} {tuple(fitted[name].shape)} instead of {tuple(towers[name].shape)}" for name in fitted
                 if fitted[name].shape != towers[name].shape]  # fmt: skip
    lost = [] if partial else [name for name in missing if not name.startswith(f"{IMAGE}fpn")]
    if misshaped or lost:
        message = f"This is not the CLIP that the network is made of: {', '.join((misshaped + lost)[:6])}. Give the file of its own size."
        raise WeightsError(message, missing=lost, misshaped=misshaped)
    with torch.no_grad():
        for name, tensor in fitted.items():
            towers[name].copy_(tensor)
    return Start(tuple(missing), tuple(name for name in given if name not in towers))


def _place(name: str) -> str:
    """A name of CLIP's file as the published checkpoints have it."""
    return IMAGE + name.removeprefix("visual.") if name.startswith("visual.") else TEXT + name


def _fitted(name: str, tensor: Tensor, wanted: Tensor) -> Tensor:
    """A position table of CLIP at the size that is wanted; everything else as it is."""
    if not name.endswith("positional_embedding") or tensor.shape == wanted.shape:
        return tensor
    if name.startswith(TEXT):
        return tensor[: len(wanted)]
    side = round((len(wanted) - 1) ** 0.5)
    return resize_table(tensor, (side, side), "bilinear")
