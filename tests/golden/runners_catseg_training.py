"""CAT-Seg's training: the mapper, the loss, and the first steps (kinds ``train``, ``loss``, ``train_mapper`` and ``color_jitter``)."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from runners_catseg import clip_input, config_of, texts
from torch import Tensor

from promptseg.contracts import Recipe
from promptseg.data.colours import linear, saturated, turned
from promptseg.models.catseg import Model
from promptseg.models.catseg.jitter import jittered
from promptseg.models.catseg.keys import LAYOUTS
from promptseg.models.catseg.losses import class_loss
from promptseg.models.catseg.mapper import Mapper
from promptseg.models.catseg.recipes import Mode, groups
from promptseg.models.catseg.tuning import tune
from promptseg.nn.conversion import to_official
from promptseg.training.groups import arrange
from promptseg.training.schedules import Cosine

MODES: dict[str, Mode] = {"attention": "query-value", "full": "full", "prompt": "prompt"}  # as the published files call them


def loss(case: Case) -> Results:
    """The loss of plain logits, and its gradient."""
    logits, target = (torch.from_numpy(case.tensors[name]) for name in ("logits", "target"))
    logits.requires_grad_()
    with torch.enable_grad():
        value = class_loss(logits, target, case.args["ignore"])
        (gradient,) = torch.autograd.grad(value, logits)
    return {"loss": float(value.detach()), "grad/logits": gradient}


def color_jitter(case: Case) -> Results:
    """Single changes, and the whole random one."""
    photo = case.args["image"]
    results: dict[str, Any] = {}
    for name, given in case.args["ops"].items():
        kind = given["op"]
        if kind == "random":
            results[name] = jittered(photo, Random(given["seed"]))
        elif kind == "saturation":
            results[name] = saturated(photo, given["factor"])
        elif kind == "hue":
            results[name] = turned(photo, given["add"])
        else:
            results[name] = linear(photo, given.get("factor", 1), given.get("add", 0))
    return results


def train_mapper(case: Case) -> Results:
    """A photo and its labels, made ready."""
    args = case.args
    mapper = Mapper(
        short=tuple(args["short_edge"]),
        long=args["max_size"],
        crop=tuple(args["crop"]),
        padded=tuple(args["pad_to"]),
        pad_photo=args["pad_image"],
        pad_label=args["pad_label"],
    )
    photo, labels, size = mapper(args["image"], args["label"].numpy(), args["seed"])
    found = [int(value) for value in np.unique(labels) if value != args["pad_label"]]
    return {"image": photo.transpose(2, 0, 1), "sem_seg": labels, "unpadded_size": list(size), "gt_classes": found}


def train(case: Case) -> Results:
    """The forward and backward pass of a batch, and steps of the optimiser on it."""
    args = case.args
    config, mode = config_of(args["config"]), MODES.get(args["finetune"], "frozen")
    net = Model.from_official(config, case.state_dict()).train()
    tune(net, mode)
    pixels = torch.cat([clip_input(photo, None, config.side, args["config"]["size_divisibility"]) for photo in args["images"]])
    target = args["target"].repeat_interleave(args["target_repeat"], 1).repeat_interleave(args["target_repeat"], 2)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = None if args["optimizer"] is None else _optimizer(net, args["optimizer"], mode)
    results: dict[str, Any] = {}
    for step in range(max(1, args["steps"])):
        net.zero_grad()
        with torch.enable_grad():
            image, prompts = net.encode_image(pixels), net.encode_prompts(texts(args["classes"], args["prompt"]))
            logits = net.decode(image, prompts).logits
            value = class_loss(logits, target, args["ignore"])
            value.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            results |= {
                "logits": logits,
                "corr": torch.cat([net.aggregator.cost(one, prompts.condition[:, None]) for one in image.embedding]),
            }
            results |= _gradients(net)
        results[f"loss.{step}"] = float(value.detach())
        norm = torch.stack([parameter.grad.norm() for parameter in learning if parameter.grad is not None]).norm()
        results[f"grad_norm.{step}"] = float(norm)
        if optimizer is not None:
            schedule, given = Cosine(period=args["optimizer"]["max_iter"]), args["optimizer"]
            results[f"lr_head.{step}"] = schedule.rate(given["lr"], step, args["steps"])
            results[f"lr_clip.{step}"] = schedule.rate(given["lr"] * given["clip_multiplier"], step, args["steps"])
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(group["initial_lr"], step, args["steps"])
            torch.nn.utils.clip_grad_norm_(learning, given["clip_gradients"]["max_norm"])
            optimizer.step()
    change = {name: tensor - before[name] for name, tensor in net.state_dict().items()}
    return results | {f"change:{name}": value for name, value in to_official(LAYOUTS["official"], change).items()}


def _optimizer(net: Model, given: dict[str, Any], mode: Mode) -> torch.optim.Optimizer:
    recipe = Recipe(
        name="case", card="catseg-base", data="", output="", steps=1, batch_size=1, lr=given["lr"], weight_decay=given["weight_decay"],
        groups=groups(mode, given["clip_multiplier"]),
    )  # fmt: skip
    listed = [
        {"params": list(group.parameters), "initial_lr": group.lr, "weight_decay": group.weight_decay} for group in arrange(net, recipe)
    ]
    return torch.optim.AdamW(listed, lr=given["lr"], betas=tuple(given["betas"]), eps=given["eps"])


def _gradients(net: Model) -> dict[str, Any]:
    """Gradients and their norms, by published names; a parameter without one has the norm 0."""
    found: dict[str, Tensor] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    named = to_official(LAYOUTS["official"], found)
    norms = {f"grad_norm:{name}": float(gradient.norm()) for name, gradient in named.items()}
    return {**{f"grad/{name}": gradient for name, gradient in named.items()}, **norms}


RUNNERS = {"catseg/train": train, "catseg/loss": loss, "catseg/color_jitter": color_jitter, "catseg/train_mapper": train_mapper}
