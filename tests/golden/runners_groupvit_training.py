"""GroupViT's training (kinds of ``groupvit/``): losses, steps, words of captions, learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from runners_groupvit import network, normalised
from torch import Tensor

from promptseg.models.groupvit import losses as groupvit_losses
from promptseg.models.groupvit.keys import LAYOUTS
from promptseg.models.groupvit.losses import contrastive_loss, multi_label_loss
from promptseg.models.groupvit.recipes import decays, schedule
from promptseg.models.groupvit.words import candidates, wordings
from promptseg.nn.conversion import to_official


def losses(case: Case) -> Results:
    """Both losses on raw features and their gradients, or forward only, as each of two processes sees it."""
    args = case.args
    if args["processes"] > 1:
        return _of_ranks(args)
    results: dict[str, Any] = {}
    image, text, labels = (args[name].clone().requires_grad_() for name in ("image_x", "text_x", "multi_label_x"))
    scale = torch.tensor(args["logit_scale"], requires_grad=True)
    other = scale if args["share_temperature"] else torch.tensor(args["multi_label_logit_scale"], requires_grad=True)
    with torch.enable_grad():
        ways = {
            "loss": (contrastive_loss(image, text, scale), {"image_x": image, "text_x": text}, scale),
            "multi_label_loss": (multi_label_loss(image, labels, other), {"image_x": image, "multi_label_x": labels}, other),
        }
        for name, (loss, features, parameter) in ways.items():
            found = torch.autograd.grad(loss, [*features.values(), parameter])
            results |= {f"grad/{name}.{key}": gradient for key, gradient in zip(features, found, strict=False)}
            results |= {name: float(loss.detach()), f"{name}.grad_logit_scale": float(found[-1])}
    if args["clamped_logit_scale"] is not None:
        results["loss_clamped"] = float(contrastive_loss(image, text, torch.tensor(args["clamped_logit_scale"])))
    return results


def _of_ranks(args: Mapping[str, Any]) -> dict[str, float]:
    """The gathering replaced by what it gathers."""
    results: dict[str, float] = {}
    scale, other = torch.tensor(args["logit_scale"]), torch.tensor(args["multi_label_logit_scale"])
    original = groupvit_losses.of_all
    try:
        for rank in range(args["processes"]):

            def of_all(features: Tensor, rank: int = rank) -> tuple[Tensor, int]:
                everybody = _everybodys(args, features)
                return everybody.flatten(0, 1), rank * everybody.shape[1]

            groupvit_losses.of_all = of_all
            image, text, labels = (args[name][rank] for name in ("image_x", "text_x", "multi_label_x"))
            results[f"rank{rank}.loss"] = float(contrastive_loss(image, text, scale))
            results[f"rank{rank}.multi_label_loss"] = float(multi_label_loss(image, labels, other))
    finally:
        groupvit_losses.of_all = original
    return results


def _everybodys(args: Mapping[str, Any], mine: Tensor) -> Tensor:
    """The normalised features of all ranks (W, n, E) among which a rank's own are."""
    for name in ("image_x", "text_x", "multi_label_x"):
        everybody: Tensor = torch.nn.functional.normalize(args[name].float(), dim=-1)
        everybody = everybody.reshape(len(everybody), -1, everybody.shape[-1])
        if any(one.shape == mine.shape and torch.equal(one, mine) for one in everybody):
            return everybody
    raise AssertionError("features that no rank has")


def train_steps(case: Case) -> Results:
    """AdamW steps of the whole network with stored noise."""
    args, published = case.args, case.state_dict()
    net, rule = network(case).train(), args["optimizer"]
    pixels = torch.cat([normalised(photo, args["mean"], args["std"]) for photo in args["images"]])
    named = dict(net.named_parameters())
    groups = [
        {"params": [part for name, part in named.items() if decays(name, part.ndim) is wanted], "weight_decay": decay}
        for wanted, decay in ((True, rule["weight_decay"]), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=rule["lr"], betas=tuple(rule["betas"]), eps=rule["eps"])
    results: dict[str, Any] = {}
    for step in range(args["steps"]):
        optimizer.zero_grad()
        with torch.enable_grad():
            found = net.losses(pixels, args["texts"], noise=args["gumbel_noise"][step])
            total = sum(found.values(), torch.zeros(()))
            torch.autograd.backward(total)
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), args["clip_grad"])
        results |= {f"step{step}.{name}": float(value) for name, value in {"total": total, **found, "grad_norm": norm}.items()}
        if step == 0:
            gradients = _published({name: part.grad for name, part in named.items() if part.grad is not None})
            results |= {f"grad/{name}": value for name, value in gradients.items()}
            results |= {f"grad_norm.{name}": float(value.norm()) for name, value in gradients.items()}
        optimizer.step()
    after = _published(net.state_dict())
    assert set(after) == set(published)
    return results | {f"after/{name}": tensor for name, tensor in after.items()}


def _published(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in to_official(LAYOUTS["official"], ours).items()}


def word_augmentation(case: Case) -> Results:
    """Words of captions with given tags, and prompts of them drawn from the legacy generator."""
    results: dict[str, Any] = {}
    for index, one in enumerate(case.args["captions"]):
        words = candidates([(word, tag) for word, tag in one["tags"]], one["word_type"])
        drawn = wordings(one["text"], words, one["max_word"], case.args["templates"], np.random.RandomState(one["numpy_seed"]))
        results |= {f"{index}.candidates": words, f"{index}.texts": drawn}
    return results


def schedule_case(case: Case) -> Results:
    """Rates after the update of a step, and which parameters are decayed."""
    args, results = case.args, dict[str, Any]()
    for name, run in args["schedules"].items():
        per_epoch = run["samples"] // run["global_batch"]
        total = run["epochs"] * per_epoch
        rule = schedule(run["warmup_epochs"] * per_epoch, run["warmup_lr"] / run["base_lr"], run["min_lr"])
        results[f"rates/{name}"] = torch.tensor([rule.rate(run["base_lr"], t, total) for t in run["at"]], dtype=torch.float64)
        results |= {f"{name}.initial": rule.rate(run["base_lr"], 0, total), f"{name}.steps_per_epoch": per_epoch, f"{name}.total": total}
    shapes = {entry["name"]: entry["shape"] for entry in args["parameters"] if "running_" not in entry["name"]}
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    decayed = {name: decays(name, len(shape)) for name, shape in shapes.items()}
    return results | {
        "decayed": sum(decayed.values()),
        "not_decayed": len(decayed) - sum(decayed.values()),
        "members_decayed": [decayed[name] for name in args["members"]],
    }


RUNNERS = {
    "groupvit/losses": losses,
    "groupvit/train_steps": train_steps,
    "groupvit/word_augmentation": word_augmentation,
    "groupvit/schedule": schedule_case,
}
