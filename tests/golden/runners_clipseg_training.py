"""CLIPSeg's training (kinds ``clipseg/loss`` and ``clipseg/train``): loss, gradients and the first steps of the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from cases import Case, Results
from runners_clipseg import config_of, named_as_published, pixels
from torch import Tensor

from promptseg.models.clipseg import ClipSegConfig, Model
from promptseg.models.clipseg.losses import mask_loss
from promptseg.models.clipseg.mixing import mix
from promptseg.training.schedules import Constant, Cosine, Schedule, Warmup


def loss(case: Case) -> Results:
    """The loss of plain logits, and its gradient."""
    logits = case.args["logits"].requires_grad_()
    with torch.enable_grad():
        value = mask_loss(logits, case.args["target"])
        (gradient,) = torch.autograd.grad(value, logits)
    return {"loss": float(value.detach()), "grad/logits": gradient}


def train(case: Case) -> Results:
    """A few steps on one batch; the condition is a text mixed with the embedding of an unmasked picture."""
    args, published = case.args, case.state_dict()
    config = config_of(args["config"])
    config = replace(config, dropout=args["dropout"]) if isinstance(config, ClipSegConfig) else config
    net = Model.from_official(config, published).train()
    options = {key: value for key, value in args["optimizer"].items() if key != "name"}
    optimizer = getattr(torch.optim, args["optimizer"]["name"])([p for p in net.parameters() if p.requires_grad], **options)
    schedule = _schedule(args["schedule"])
    images, support = (torch.cat([pixels(photo, args["input_size"]) for photo in args[name]]) for name in ("images", "support"))
    results: dict[str, Any] = {}
    for step in range(args["steps"]):
        optimizer.zero_grad()
        with torch.enable_grad():
            texts, visual = net.embed_texts(args["prompts"]), net.embed_images(support)
            condition = mix(texts, visual, args["text_weights"].flatten())
            logits = net.decoder(net.encode_image(images, square=True), condition[:, None])
            logits.retain_grad()
            value = mask_loss(logits, args["targets"])
            value.backward()  # type: ignore[no-untyped-call]
        results[f"loss_{step}"] = float(value.detach())
        if step == 0:
            results |= {"text_cond": texts, "visual_cond": visual, "cond": condition, "logits": logits, "grad/logits": logits.grad}
            results |= _gradients(net, published)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(options["lr"], step, args["steps"])
        optimizer.step()
    return results | {f"after/{name}": tensor for name, tensor in named_as_published(net.state_dict(), published).items()}


def _schedule(given: Mapping[str, Any] | None) -> Schedule:
    if given is None:
        return Constant()
    if given["name"] == "cosine":
        return Cosine(minimum=given["eta_min"], period=given["T_max"])
    return Warmup(steps=given["warmup"], start=1 / (given["warmup"] + 1), main=Cosine(period=given["max_iter"] - given["warmup"]))


def _gradients(net: Model, published: Mapping[str, Tensor]) -> dict[str, Any]:
    """Gradients and their norms; without one are also the parameters that only the published class has."""
    learning = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    gradients = named_as_published({name: p.grad.clone() for name, p in learning.items() if p.grad is not None}, published)
    idle = named_as_published({name: p for name, p in learning.items() if p.grad is None}, published)
    unread = published.keys() - named_as_published(net.state_dict(), published).keys()
    return {
        **{f"grad/{name}": gradient for name, gradient in gradients.items()},
        **{f"grad_norm/{name}": float(gradient.norm()) for name, gradient in gradients.items()},
        "parameters_without_gradient": sorted({*idle, *unread}),
    }


RUNNERS = {"clipseg/loss": loss, "clipseg/train": train}
