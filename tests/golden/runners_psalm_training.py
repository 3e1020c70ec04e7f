"""PSALM's training: one batch of each kind, its losses and gradients (kind ``train_step``)."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from cases import Case, Results
from runners_psalm import config_of, filled
from runners_psalm_parts import judged, loss_config
from runners_psalm_tasks import traced
from torch import Tensor

from promptseg.models.psalm import Model, keys
from promptseg.models.psalm.batches import Batch, answers, shuffle_classes
from promptseg.models.psalm.conditions import region_samples
from promptseg.models.psalm.losses import Targets, language_loss
from promptseg.models.psalm.photos import fit_photo, fitted, normalised
from promptseg.models.psalm.tokens import PromptBatch, conversation, prompt_text
from promptseg.nn.conversion import to_official

NAMES = ("loss_mask", "loss_dice", "loss_SEG_class", "loss_class_name_class", "loss_region_class", "loss_llm")


def train_step(case: Case) -> Results:
    """Forward in training mode with the image encoder frozen, loss, backward."""
    args, weights = case.args, filled(case)
    config = config_of(args["config"], args["image_size"])
    model = Model.from_official(replace(config, vision=replace(config.vision, drop_path=args["drop_path_rate"])), weights).train()
    model.requires_grad_(True).vision.requires_grad_(False)
    squares = [fit_photo(image, args["image_size"]) for image in args["images"]]
    batch = batch_of(case, torch.stack([normalised(square) for square in squares]))
    results: dict[str, Any] = {
        "image_u8": np.stack([square.transpose(2, 0, 1) for square in squares]),
        "valid_hw": [list(fitted(image.shape[:2], args["image_size"])) for image in args["images"]],
        "prompts": said(case, batch),
    }
    torch.manual_seed(args["torch_seed"])
    results |= _seen(model, batch)
    torch.manual_seed(args["torch_seed"])
    with torch.enable_grad():
        understood, heads = answers(model, batch)
        if batch.targets is None:
            logits = model.language.head(understood.states)
            total = language_loss(logits, understood.merged.labels)
            results |= {"logits": logits, "loss_llm": total.item()}
        else:
            raw, total = judged(case, heads, batch.targets, loss_config(args))
            results |= _weighted(raw, args["loss_weights"])
        total.backward()  # type: ignore[no-untyped-call]
    merged = {"merged_embeds": understood.merged.embeds, "merged_attention_mask": understood.merged.valid}
    merged |= {"merged_labels": understood.merged.labels, "hidden_states": understood.states}
    results = {**dict.fromkeys(NAMES, 0.0), **merged, **(traced(understood, heads) if heads else {}), **results, "loss": total.item()}
    if understood.conditions.regions is not None:
        results |= {f"region_embeddings_{image}": one for image, one in enumerate(understood.conditions.regions)}
        for image in range(len(understood.conditions.regions)):
            results[f"region_logits_{image}"] = torch.stack([(head.regions or ())[image] for head in heads])
    return results | _gradients(model)


def batch_of(case: Case, pixels: Tensor) -> Batch:
    """The stored ids and targets; the order of classes is drawn again."""
    stored, count = {name: torch.from_numpy(value) for name, value in case.tensors.items()}, len(pixels)
    sentences = tuple(stored[f"token_refer_id_{image}"] for image in range(count)) if "token_refer_id_0" in stored else None
    prompts = PromptBatch(
        stored["input_ids"],
        stored["labels"],
        stored["attention_mask"].bool(),
        stored.get("class_name_ids"),
        stored.get("cls_indices"),
        sentences,
    )
    masks = [stored.get(f"gt_masks_{image}") for image in range(count)]
    targets = tuple(Targets(one, stored[f"gt_classes_{image}"]) for image, one in enumerate(masks) if one is not None)
    regions = tuple(stored[f"region_masks_{image}"] for image in range(count)) if "region_masks_0" in stored else None
    places = None
    if case.args["python_random_seed"] is not None:
        random = Random(case.args["python_random_seed"])
        places = torch.stack([shuffle_classes(case.args["classes"], random)[1] for _ in range(count)])
        assert torch.equal(places, stored["random_idx"])
    return Batch(pixels, prompts, targets or None, regions, places)


def said(case: Case, batch: Batch) -> list[str]:
    """The whole prompts, padding included."""
    args, padding = case.args, (~batch.prompts.attention).sum(1).tolist()
    if args["task"] == "mm_conv":
        texts = [conversation([turn["value"] for turn in turns]) for turns in args["conversations"]]
    else:
        regions = [len(one) for one in batch.regions] if batch.regions is not None else [0] * len(padding)
        texts = [prompt_text(args["task"], classes=len(args["classes"] or ()), regions=count) for count in regions]
    return [text + "[PAD]" * count for text, count in zip(texts, padding, strict=True)]


def _seen(model: Model, batch: Batch) -> dict[str, Any]:
    """What the network sees of the photos and regions. Statistics of the projector move by one batch only, as they are put back."""
    state = {name: value.clone() for name, value in model.projector.state_dict().items()}
    maps, read = model.look(batch.pixels)
    tokens = model.projector(read[-1])
    model.projector.load_state_dict(state)
    results: dict[str, Any] = {f"swin_res{level}": one for level, one in enumerate(maps, 2)} | {"projector_out": tokens}
    seen = model.pixel_decoder(maps)
    results |= {f"multi_scale_{level}": one for level, one in enumerate(seen.scales)} | {"mask_features": seen.features}
    if batch.regions is not None:
        for image, points in enumerate(model.draw(batch.regions)):
            results |= {f"region_points_{image}": points, f"region_point_features_{image}": region_samples(tokens[image], points)}
    return results


def _weighted(raw: dict[str, Any], weights: dict[str, float]) -> dict[str, Any]:
    """Single losses as ``raw.*``, and their weighted sums over all rounds."""
    single = {name: value for name, value in raw.items() if name.startswith("loss_")}
    results = {name: value for name, value in raw.items() if name not in single} | {f"raw.{name}": value for name, value in single.items()}
    for kind, weight in weights.items():
        rounds = [value for name, value in single.items() if name == kind or name.removeprefix(f"{kind}_").isdigit()]
        results[kind] = weight * sum(rounds)
    return results


def _gradients(model: Model) -> dict[str, Any]:
    """Gradients, their norms and the parameters without any, by published names; buffers after the forward pass."""
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for name, parameter in model.named_parameters()
    }
    reached = to_official(keys.OFFICIAL, gradients)
    without = to_official(
        keys.OFFICIAL, {name: torch.tensor(name in learning and learning[name].grad is None) for name in model.state_dict()}
    )
    norms = {name: gradient.double().norm().item() for name, gradient in reached.items()}
    total = float(np.sqrt(sum(norm**2 for norm in norms.values())))
    after = to_official(keys.OFFICIAL, model.state_dict())
    return {
        **{f"grad/{name}": gradient for name, gradient in reached.items()},
        **{f"grad_norm.{name}": norm for name, norm in norms.items()},
        **{f"after/{name}": value for name, value in after.items()},
        "grad_total_norm": total,
        "without_grad": sorted(name for name, none in without.items() if bool(none)),
    }


RUNNERS = {"psalm/train_step": train_step}
