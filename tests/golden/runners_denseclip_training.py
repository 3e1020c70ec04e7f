"""DenseCLIP's training for segmentation: losses, gradients, and what becomes of a photo (kinds ``seg_train``, ``seg_loss``, ...)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from runners_clip import with_counters
from runners_denseclip import model_input
from runners_denseclip_parts import config_of

from promptseg.models.denseclip.config import DenseClipConfig, SemanticHead, VitBackbone
from promptseg.models.denseclip.keys import LAYOUTS
from promptseg.models.denseclip.losses import accuracy, pixel_loss, segmentation_losses
from promptseg.models.denseclip.network import Model
from promptseg.models.denseclip.photos import coloured, cut
from promptseg.nn.conversion import to_official


def noisy(config: DenseClipConfig, dropout: float, drop_path: float) -> DenseClipConfig:
    """The network with the case's noise in training."""
    assert isinstance(config.head, SemanticHead)
    language, backbone = config.language, config.backbone
    if language is not None:
        language = replace(language, decoder=replace(language.decoder, dropout=dropout))
    if isinstance(backbone, VitBackbone):
        backbone = replace(backbone, drop_path=drop_path)
    return replace(config, language=language, backbone=backbone, head=replace(config.head, dropout=dropout))


def train(case: Case) -> Results:
    """One forward and backward pass in training mode."""
    args = case.args
    config = noisy(config_of(args["config"], args["class_names"]), args["dropout"], args["drop_path"])
    net = Model.from_official(config, with_counters(case.state_dict())).train()
    pixels, target = model_input(args["input"], args["config"]).clone().requires_grad_(), args["target"][:, 0]
    tau, ignore = (config.language.tau if config.language else 1.0), args["ignore_index"]
    with torch.enable_grad():
        logits, scores = net(pixels)
        losses = segmentation_losses(logits, scores, target, tau, ignore)
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
    results: dict[str, Any] = {"loss": float(total.detach()), "decode.loss_ce": float(losses["head"].detach()), "grad/input": pixels.grad}
    results["decode.acc_seg"] = 100 * float(accuracy(logits, target))
    if scores is not None:
        results["aux_identity.loss_ce"] = float(losses["score_map"].detach())
        results["aux_identity.acc_seg"] = 100 * float(accuracy(scores / tau, target))
    gradients = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    rules = LAYOUTS["official"]
    for name, gradient in to_official(rules, gradients).items():
        results |= {f"grad/{name}": gradient, f"grad_norm:{name}": float(gradient.norm())}
    return results | {f"after/{name}": value for name, value in to_official(rules, net.state_dict()).items()}


def loss(case: Case) -> Results:
    """The loss of a score map over its temperature, and its gradient."""
    args, target = case.args, case.args["target"][:, 0]
    logits = (args["score_map"] / args["tau"]).requires_grad_()
    with torch.enable_grad():
        value = args["loss_weight"] * pixel_loss(logits, target, args["ignore_index"])
        (gradient,) = torch.autograd.grad(value, logits)
    return {"loss": float(value.detach()), "acc_seg": 100 * float(accuracy(logits, target)), "grad/logits": gradient}


def photometric(case: Case) -> Results:
    """Random colours; the published code has blue first."""
    draw = np.random.RandomState(case.args["numpy_seed"])
    return {"out": coloured(case.args["image"], draw)[..., ::-1]}


def random_crop(case: Case) -> Results:
    """A crop of labels."""
    args, labels = case.args, case.args["label"].numpy()
    draw = np.random.RandomState(args["numpy_seed"])
    return {"out": labels[cut(labels, (args["size"][0], args["size"][1]), draw, args["ignore_index"], args["cat_max_ratio"])]}


RUNNERS = {
    "denseclip/seg_train": train,
    "denseclip/seg_loss": loss,
    "denseclip/photometric": photometric,
    "denseclip/random_crop": random_crop,
}
