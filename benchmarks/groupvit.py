"""GroupViT against transformers: the same random full-size weights, timed in turn in one process.

    python benchmarks/groupvit.py [--json FILE] [--cpu]

Class names go in as "a photo of a NAME.", encoded anew each time, except in the rows "cached", where ours keeps them as the `Segmenter`
does; transformers has no such half. Both give the scaled cosines of images and classes; ours the segments' and the group maps as well.
Pixels and the peer's token ids are prepared before the clock starts; ours reads its class names as text. The peer's ids are padded to the
longest of their batch, as its processor pads them with ``padding=True``, but for the row that says otherwise.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common import Row, gemm_rate, in_turn, machine, parser, peaks_in_turn, report, trial
from promptseg.data.vocabularies import names
from promptseg.images import load, to_pixels
from promptseg.models.groupvit import GroupVitConfig
from promptseg.models.groupvit.network import Model
from promptseg.models.groupvit.windows import over
from promptseg.prompts import Text
from promptseg.tokenizers import clip as clip_tokenizer

PHOTO = Path(__file__).parents[1] / "examples" / "dog.jpg"
SIDE = 224  # the peer takes no other size
CLASSES = {21: names("voc21-groupvit"), 60: names("context60-groupvit"), 171: names("coco-stuff171")}
TEMPLATE = ("a photo of a {}.",)


def peer_model() -> Any:
    """transformers' model with random weights and the published sizes."""
    from transformers import GroupViTConfig, GroupViTModel

    torch.manual_seed(0)
    peer: Any = GroupViTModel(GroupViTConfig())
    return peer.eval()


def photos() -> Tensor:
    """(8, 3, 224, 224): the example photo and seven crops of it."""
    photo, preprocess = load(PHOTO), GroupVitConfig().preprocess
    H, W = photo.shape[:2]
    crops = [photo[i * H // 20 : H - i * H // 25, i * W // 22 : W - i * W // 30] for i in range(8)]
    shown = [(crop, over((crop.shape[0], crop.shape[1]), (SIDE, SIDE))[0]) for crop in crops]
    return torch.stack([to_pixels(crop, view, preprocess) for crop, view in shown])


def largest_difference(model: Model, peer: Any, pixels: Tensor, prompts: list[Text], asked: dict[str, Tensor]) -> float:
    """Over everything that transformers returns: logits, embeddings of images and texts, and pixels' logits, once and not twice scaled."""
    image, texts = model.encode_image(pixels), model.encode_prompts(prompts)
    found, its = model.decode(image, texts), peer(**asked, output_segmentation=True)
    maps = F.interpolate(found.maps[-1], pixels.shape[-2:], mode="bilinear", align_corners=False)
    pairs = (
        (found.whole, its.logits_per_image),
        (image.whole, its.image_embeds),
        (F.normalize(texts.condition, dim=-1), its.text_embeds),
        (torch.einsum("bgn,bghw->bnhw", found.logits, maps), its.segmentation_logits / model.scale),
    )
    return max(float((own - other).abs().max()) for own, other in pairs)


def compare(
    model: Model, peer: Any, pixels: Tensor, classes: int, options: Namespace, *, cached: bool = False, padding: int | None = None
) -> Row:
    """One row: every class on every photo; ``padding``: tokens that the peer's phrases are padded to, None: those of the longest."""
    prompts = [Text(name, TEMPLATE) for name in CLASSES[classes]]
    ids = clip_tokenizer()([TEMPLATE[0].format(name) for name in CLASSES[classes]])
    ids = F.pad(ids, (0, 0 if padding is None else padding - ids.shape[1]))
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    asked = {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask}
    kept = model.encode_prompts(prompts) if cached else None

    def own() -> Tensor:
        return model.decode(model.encode_image(pixels), kept or model.encode_prompts(prompts)).whole

    def other() -> Tensor:
        logits: Tensor = peer(**asked).logits_per_image
        return logits

    difference = largest_difference(model, peer, pixels, prompts, asked)  # and a warm-up of both
    mine, its = trial(own), trial(other)
    own_s, other_s = in_turn(own, other, options.rounds, options.clock)
    own_mb, other_mb = peaks_in_turn(own, other, options.rounds)
    photos = "batch 8" if len(pixels) == 8 else f"{classes} classes"
    return Row(
        work=photos + ", cached" * cached + f", peer padded to {padding}" * (padding is not None),
        ours_s=own_s,
        peer="transformers",
        peer_s=other_s,
        ratio=other_s / own_s,
        max_difference=difference,
        ours_gemm_share=mine.flops / own_s / options.rate,
        peer_gemm_share=its.flops / other_s / options.rate,
        ours_peak_mb=own_mb,
        peer_peak_mb=other_mb,
    )


def main() -> None:
    """Time all rows and report."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--cpu",
        action="store_const",
        dest="clock",
        const=time.process_time,
        default=time.perf_counter,
        help="seconds of the processor, of all threads, for a machine that is not idle",
    )
    options = arguments.parse_args()
    options.rate = gemm_rate(clock=options.clock)
    peer = peer_model()
    model = Model.from_official(GroupVitConfig(), peer.state_dict())
    pixels, facts = photos(), machine()
    with torch.inference_mode():
        rows = [
            compare(model, peer, shown, count, options, cached=cached)
            for cached in (False, True)
            for count, shown in (*((count, pixels[:1]) for count in CLASSES), (21, pixels))
        ]
        rows += [compare(model, peer, pixels[:1], 21, options, padding=77)]
    report(facts, rows, options.json)


if __name__ == "__main__":
    main()
