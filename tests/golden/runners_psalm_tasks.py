"""Runners of PSALM's cases that need the whole network, and of its post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, Results
from numpy.typing import NDArray
from runners_psalm import config_of, filled, language_of, normal
from torch import Tensor

from promptseg.data.filling import fill_coco
from promptseg.models.psalm import Model, keys
from promptseg.models.psalm import postprocess as post
from promptseg.models.psalm.conditions import region_points, region_samples
from promptseg.models.psalm.language import Phi
from promptseg.models.psalm.network import PsalmImage, Understood
from promptseg.models.psalm.photos import POINT_RADIUS, SCRIBBLE_RADIUS, discs, fit_mask, fit_photo, fitted, normalised, polygon_mask
from promptseg.models.psalm.predictor import Head
from promptseg.models.psalm.tokens import PromptBatch, PromptIds, prompt_text, sentence_text
from promptseg.models.psalm.video import Frame as VideoFrame
from promptseg.models.psalm.video import Memory, index_map
from promptseg.nn.conversion import built
from promptseg.rle import Rle

Size = tuple[int, int]
_last: list[tuple[object, Model]] = []  # of one configuration: the full-size one takes minutes to fill


def model_of(case: Case, side: int) -> Model:
    """The network with the case's weights; the last one is kept."""
    key = (repr(case.args["config"]), str(case.data["weights"]), side)
    if not _last or _last[0][0] != key:
        _last.clear()
        _last.append((key, Model.from_official(config_of(case.args["config"], side), filled(case))))
    return _last[0][1]


def batch_of(case: Case, prefix: str = "") -> PromptBatch:
    """The ids of a case."""
    stored = {name: torch.from_numpy(value) for name, value in case.tensors.items()}
    ids = stored[f"{prefix}input_ids"]
    return PromptBatch(
        ids,
        stored.get(f"{prefix}labels", ids),
        stored.get(f"{prefix}attention_mask", torch.ones_like(ids, dtype=torch.bool)),
        stored.get(f"{prefix}class_name_ids"),
        stored.get(f"{prefix}cls_indices"),
        (stored[f"{prefix}token_refer_id_0"],) if f"{prefix}token_refer_id_0" in stored else None,
    )


@dataclass(frozen=True)
class Photo:
    """A case's image on the network's grid."""

    size: Size
    side: int
    square: NDArray[np.uint8]
    pixels: Tensor

    @classmethod
    def of(cls, image: NDArray[np.uint8], side: int) -> Photo:
        square = fit_photo(image, side)
        return cls((image.shape[0], image.shape[1]), side, square, normalised(square)[None])

    @property
    def content(self) -> Size:
        return fitted(self.size, self.side)

    def grow(self, masks: Tensor) -> Tensor:
        return post.enlarged(masks, self.side, self.content, self.size)


def segment(case: Case) -> Results:
    """The whole model on one image."""
    args, side = case.args, case.args["image_size"]
    net, photo = model_of(case, side), Photo.of(args["image"], side)
    results: dict[str, Any] = {"image_u8": photo.square.transpose(2, 0, 1)[None], "valid_hw": list(photo.content)}
    maps, _ = net.look(photo.pixels)
    seen, tokens = net.pixel_decoder(maps), net.projector(maps[-1])
    results |= {f"swin_res{i}": one for i, one in enumerate(maps, 2)} | {"projector_out": tokens}
    results |= {f"multi_scale_{i}": one for i, one in enumerate(seen.scales)} | {"mask_features": seen.features}
    regions = None
    if args["annotations"]:
        results |= truths(args, photo)
    if args["task"] == "region":
        torch.manual_seed(args["torch_seed"])
        masks = torch.from_numpy(results["region_masks_0"])
        points = net.draw([masks])
        regions = net.regions(tokens, points)
        results |= {"region_points_0": points[0], "region_point_features_0": region_samples(tokens[0], points[0])}
    batch = batch_of(case)
    understood = net.understand(batch, tokens, regions)
    heads = net.predict(seen, understood, every=True)
    results |= traced(understood, heads)
    results |= texts(args)
    results |= FINISH[args["task"]](case, photo, heads[-1], results)
    return results


def texts(args: Mapping[str, Any]) -> Results:
    """What the prompt says."""
    regions = len(args["annotations"] or ()) if args["task"] == "region" else 0
    said = {
        "prompt": prompt_text(
            args["task"] if args["task"] != "semantic" else "panoptic", classes=len(args["classes"] or ()), regions=regions
        )
    }
    return said | ({"sentence_text": sentence_text(args["sentences"])} if args["sentences"] else {})


def traced(understood: Understood, heads: Sequence[Head]) -> dict[str, Any]:
    """What happened inside."""
    merged, asked = understood.merged, understood.conditions
    results: dict[str, Any] = {
        "merged_embeds": merged.embeds, "merged_attention_mask": merged.valid, "seg_query_mask": merged.masks,
        "class_index": merged.classes,
        "refer_index": merged.sentence, "region_mask_index": merged.regions, "hidden_states": understood.states,
        "seg_query": understood.queries, "class_embeddings": asked.classes, "sentence_embedding": asked.sentence,
        "mask_logits_layers": torch.stack([head.masks for head in heads]),
    }  # fmt: skip
    if asked.classes is not None:
        results["class_logits"] = torch.stack([_there(head.classes) for head in heads])
    if asked.sentence is not None:
        results["sentence_logits"] = torch.stack([_there(head.sentence) for head in heads])
    if asked.regions is not None:
        results["region_embeddings_0"] = asked.regions[0]
        results["region_logits_0"] = torch.stack([(head.regions or ())[0] for head in heads])
    return results


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def truths(args: Mapping[str, Any], photo: Photo) -> dict[str, Any]:
    """Annotations on the network's grid, the prompts that they hold, and their union as COCO's referring evaluation draws it."""
    rings = [[np.asarray(ring, np.float64).reshape(-1, 2) for ring in entry["segmentation"]] for entry in args["annotations"]]
    found: dict[str, Any] = {"gt_masks_0": np.stack([polygon_mask(one, photo.size, photo.side) for one in rings])}
    if args["prompt_type"]:
        radius = {"point": POINT_RADIUS, "scribble": SCRIBBLE_RADIUS}.get(args["prompt_type"].split("_")[0], 0)
        prompts = (Rle.from_string(entry[args["prompt_type"]]["counts"], photo.size).decode() for entry in args["annotations"])
        found["region_masks_0"] = np.stack([fit_mask(discs(one, radius) if radius else one, photo.side) for one in prompts])
    return found


# --- what becomes of the last round -----------------------------------------------------------------------------------------------------


def ordered(case: Case, names: tuple[str, str], query: Tensor, label: Tensor | None, *columns: Tensor) -> list[Tensor]:
    """Instances, which come in no order, in that of the case where they are the same ones."""
    wanted = [torch.from_numpy(case.tensors[name]) for name in names if name in case.tensors]
    have = [query] if label is None else [query, label]
    places = {pair: place for place, pair in enumerate(zip(*(one.tolist() for one in have), strict=True))}
    pairs = list(zip(*(one.tolist() for one in wanted[: len(have)]), strict=True))
    order = torch.tensor([places[pair] for pair in pairs], dtype=torch.long) if set(pairs) == set(places) else torch.arange(len(query))
    return [one[order] for one in (*have, *columns)]


def _instances(case: Case, class_logits: Tensor, masks: Tensor, things: Sequence[bool] | None) -> Results:
    found = post.instances(class_logits, post.certainty(masks))
    chosen = torch.tensor([things is None or things[label] for label in found.label.tolist()], dtype=torch.bool)
    columns = ordered(
        case,
        ("query_of_instance", "pred_classes"),
        found.query[chosen],
        found.label[chosen],
        found.score[chosen],
        masks[found.query[chosen]] > 0,
    )
    return dict(zip(("query_of_instance", "pred_classes", "scores", "pred_masks"), columns, strict=True))


def _panoptic(case: Case, photo: Photo, head: Head, _: Mapping[str, Any]) -> Results:
    masks, logits, things = photo.grow(head.masks[0]), _there(head.classes)[0], case.args["is_thing"]
    index, segments = post.panoptic(post.kept(logits), masks[post.kept(logits).query], things, photo.size)
    scores = post.semantic(logits, masks)
    listed = [{"id": number, "isthing": one.is_thing, "category_id": one.label} for number, one in enumerate(segments, 1)]
    maps = {"panoptic_map": index, "segments_info": listed, "sem_seg": scores, "sem_seg_argmax": scores.argmax(0)}
    return maps | dict(_instances(case, logits, masks, things))


def _instance(case: Case, photo: Photo, head: Head, _: Mapping[str, Any]) -> Results:
    return _instances(case, _there(head.classes)[0], photo.grow(head.masks[0]), None)


def _semantic(case: Case, photo: Photo, head: Head, _: Mapping[str, Any]) -> Results:
    square = F.interpolate(head.masks, (photo.side, photo.side), mode="bilinear", align_corners=False)[0]
    scores = post.semantic(_there(head.classes)[0], square)[:, : photo.content[0], : photo.content[1]]
    scores = F.interpolate(scores[None], photo.size, mode="bilinear", align_corners=False)[0]
    where = case.args["class_id_mapping"]
    result = torch.zeros(max(where) + 1, *photo.size)
    result[torch.tensor(where)] = scores
    return {"sem_seg": result, "sem_seg_argmax": result.argmax(0)}


def _referring(case: Case, photo: Photo, head: Head, _: Mapping[str, Any]) -> Results:
    masks = photo.grow(head.masks[0])
    scores = _there(head.sentence)[0, :, 0].sigmoid() * post.certainty(masks)
    columns = ordered(case, ("query_of_instance", "none"), torch.arange(len(scores)), None, scores, masks > 0)
    results: dict[str, Any] = dict(zip(("query_of_instance", "scores", "pred_masks"), columns, strict=True))
    if case.args["threshold"] is not None:
        results |= _compared(post.united(columns[2], columns[1], case.args["threshold"]).numpy(), _painted(case.args, photo))
    return results


def _painted(args: Mapping[str, Any], photo: Photo) -> NDArray[np.uint8]:
    """The union of the annotations' polygons, their corners cut to whole pixels."""
    import cv2

    canvas = np.zeros(photo.size, np.uint8)
    for entry in args["annotations"] or ():
        for ring in entry["segmentation"]:
            cv2.fillPoly(canvas, [np.asarray(ring).reshape(-1, 2).astype(np.int32)], 1)
    return canvas


def _compared(fused: NDArray[np.bool_], truth: NDArray[np.uint8]) -> dict[str, Any]:
    results: dict[str, Any] = {"fused_mask": fused, "gt_mask": truth}
    for name, value in (("background", False), ("foreground", True)):
        both, either = ((fused == value) & (truth == value)).sum(), ((fused == value) | (truth == value)).sum()
        results |= {f"intersection_{name}": int(both), f"union_{name}": int(either), f"iou_{name}": both / (either + 1e-5)}
    return results


def _region(case: Case, photo: Photo, head: Head, results: Mapping[str, Any]) -> Results:
    masks = photo.grow(head.masks[0])
    scores = (head.regions or ())[0].sigmoid().T * post.certainty(masks)[:, None]
    truth = torch.from_numpy(results["gt_masks_0"].astype(np.uint8))[:, : photo.content[0], : photo.content[1]]
    resized = F.interpolate(truth[None], photo.size, mode="bilinear", align_corners=False)[0]
    return {"pred_masks": masks > 0, "scores": scores, "gt_resized": resized}


FINISH = {"panoptic": _panoptic, "instance": _instance, "semantic": _semantic, "referring": _referring, "region": _region}


# --- parts ------------------------------------------------------------------------------------------------------------------------------


def postprocess(case: Case) -> Results:
    """Everything on crafted logits of the photo's size."""
    masks, logits = (torch.from_numpy(case.tensors[name]) for name in ("mask_logits", "class_logits"))
    things, sure = case.args["is_thing"], post.certainty(masks)
    found = post.kept(logits, case.args["object_mask_threshold"])
    index, segments = post.panoptic(found, masks[found.query], things, (masks.shape[1], masks.shape[2]), case.args["overlap_threshold"])
    results: dict[str, Any] = {"panoptic_map": index, "kept_queries": found.query.tolist(), "semantic": post.semantic(logits, masks)}
    results["segments_info"] = [{"id": number, "isthing": one.is_thing, "category_id": one.label} for number, one in enumerate(segments, 1)]
    every = post.instances(logits, sure)
    for name, kept in (
        ("panoptic_instances", torch.tensor([things[label] for label in every.label.tolist()])),
        ("instances", torch.ones(len(every.label), dtype=torch.bool)),
    ):
        columns = ordered(
            case,
            (f"{name}_query", f"{name}_classes"),
            every.query[kept],
            every.label[kept],
            every.score[kept],
            masks[every.query[kept]] > 0,
        )
        results |= {f"{name}_{column}": one for column, one in zip(("query", "classes", "scores", "masks"), columns, strict=True)}
    said = torch.from_numpy(case.tensors["sentence_logits"]).flatten().sigmoid() * sure
    columns = ordered(case, ("referring_query", "none"), torch.arange(len(said)), None, said, masks > 0)
    results |= {f"referring_{column}": one for column, one in zip(("query", "scores", "masks"), columns, strict=True)}
    scores = torch.from_numpy(case.tensors["region_logits"]).sigmoid().T * sure[:, None]
    best = [post.best(column) for column in scores.T]
    return results | {"region_masks": masks > 0, "region_scores": scores, "region_best_query": best}


def region_pooling(case: Case) -> Results:
    """Points drawn in rectangles, image by image, and what lies there."""
    args, results = case.args, dict[str, Any]()
    features = normal(args["features"])
    torch.manual_seed(args["torch_seed"])
    for number, rectangles in enumerate(args["rectangles"]):
        masks = torch.zeros(len(rectangles), *args["grid"])
        for mask, (y0, x0, y1, x1) in zip(masks, rectangles, strict=True):
            mask[y0:y1, x0:x1] = 1
        points = region_points(masks, args["num_points"])
        results |= {f"points_{number}": points, f"region_features_{number}": region_samples(features[number], points).mean(1, keepdim=True)}
    return results


def language_model(case: Case) -> Results:
    """Phi on text whose second row is padded."""
    config = language_of(case.args["config"])
    names = ("model.embed_tokens.", "model.layers.", "model.final_layernorm.", "lm_head.")
    weights = {name: tensor for prefix in names for name, tensor in filled(case, prefix).items()}
    rules = (*keys.language("model.", ""), keys.head("lm_head", "head"))
    net = built(lambda: Phi(config), {"official": rules}, weights)
    ids, valid = (torch.from_numpy(case.tensors[name]) for name in ("input_ids", "attention_mask"))
    states, weights_0 = net.trace(net.embed(ids), valid.bool())
    results = {f"hidden_{number}": one for number, one in enumerate(states[:-1])}
    return results | {"last_hidden_state": states[-1], "attention_0": weights_0, "logits": net.head(states[-1])}


def video(case: Case) -> Results:
    """Clips frame by frame, the first frame's objects given."""
    args, side, results, samples = case.args, case.args["image_size"], dict[str, Any](), list[Any]()
    net = model_of(case, side)
    torch.manual_seed(args["torch_seed"])
    torch.empty((), dtype=torch.int64).random_()  # the data loader's own
    for clip in args["videos"]:
        photos = [Photo.of(image, side) for image in clip["images"]]
        shown = [_objects(objects, photo.size) for objects, photo in zip(clip["objects"], photos, strict=True)]
        memory = Memory(VideoFrame(_tokens(net, photos[0]), np.stack(list(shown[0].values()))))
        for number, (photo, there) in enumerate(zip(photos[1:], shown[1:], strict=True), 1):
            frame, first = f"f{len(samples)}_", list(shown[0])
            objects = [value for value in first if value in there]
            samples.append(_sample(clip["name"], number, photo.size, len(samples), objects, there))
            prompt = memory.prompt([first.index(value) for value in objects])
            facts = {
                "file": f"{clip['name']}/{number:05}.jpg", "objects": objects, "prompt_is_previous_frame": prompt is memory.last,
                "prompt": prompt_text("region", regions=len(objects)),
            }  # fmt: skip
            batch = batch_of(case, frame)
            traced = _frame(net, photo, prompt, batch)
            maps, ids = net.look(photo.pixels)[0], tuple(batch.ids[0].tolist())
            words, points = Mock(pad=0, **{"prompt.return_value": PromptIds("", ids, ids)}), Mock(return_value=[traced["region_points"]])
            with patch.object(net, "_words", words), patch.object(net, "draw", points):
                image, sought = PsalmImage(net.projector(maps[-1]), net.pixel_decoder(maps)), [first.index(value) for value in objects]
                traced["index_map"] = index_map(net.to_tracked(image, photo.size, memory, sought)[0], objects)
            results |= {f"{frame}{name}": value for name, value in (facts | traced).items()}
    return results | {"builder": samples}


def _objects(objects: Mapping[str, Sequence[float]], size: Size) -> dict[int, NDArray[np.bool_]]:
    return {int(value): fill_coco([np.asarray(ring, np.float64).reshape(-1, 2)], size) for value, ring in objects.items()}


def _tokens(net: Model, photo: Photo) -> Tensor:
    return net.projector(net.look(photo.pixels)[0][-1])  # type: ignore[no-any-return]


def _frame(net: Model, photo: Photo, prompt: VideoFrame, batch: PromptBatch) -> dict[str, Any]:
    maps, _ = net.look(photo.pixels)
    grids = torch.from_numpy(np.stack([fit_mask(mask, photo.side) for mask in prompt.masks]))
    points = net.draw([grids])
    regions = net.regions(prompt.tokens, points)
    understood = net.understand(batch, net.projector(maps[-1]), regions)
    head = net.predict(net.pixel_decoder(maps), understood)[-1]
    masks, logits = photo.grow(head.masks[0]), (head.regions or ())[0]
    return {
        "vp_region_masks": grids, "region_points": points[0], "region_tokens": regions[0],
        "region_embeddings": (understood.conditions.regions or ())[0], "region_logits": logits, "mask_logits": head.masks[0],
        "scores": logits.sigmoid().T * post.certainty(masks)[:, None], "pred_masks": masks > 0,
    }  # fmt: skip


def _sample(
    name: str, number: int, size: Size, image: int, objects: Sequence[int], there: Mapping[int, NDArray[np.bool_]]
) -> dict[str, Any]:
    folder = f"2017/trainval/JPEGImages/480p/{name}"
    return {
        "image": f"{folder}/{number:05}.jpg",
        "image_info": {"file_name": f"{folder}/{number:05}.jpg", "height": size[0], "width": size[1]},
        "first_frame_image": f"{folder}/00000.jpg", "new_img_id": image, "video_name": name,
        "anns_category_id": [float(value) for value in objects], "first_frame_category_id": [float(value) for value in objects],
        "area": [float(there[value].sum()) for value in objects],
    }  # fmt: skip


RUNNERS = {
    "psalm/video": video,
    "psalm/segment": segment,
    "psalm/postprocess": postprocess,
    "psalm/region_pooling": region_pooling,
    "psalm/language_model": language_model,
}
