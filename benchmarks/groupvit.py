"""GroupViT against transformers: the same random full-size weights, timed in turn in one process.

    python benchmarks/groupvit.py [--json FILE]

Class names go in as "a photo of a NAME.", encoded anew each time, except in the rows "cached", where ours keeps them as the `Segmenter`
does; transformers has no such half. Both give the scaled cosines of images and classes; ours the segments' and the group maps as well.
Pixels and the peer's token ids are prepared before the clock starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import Row, gemm_rate, in_turn, machine, parser, report, trial
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


def compare(work: str, model: Model, peer: Any, pixels: Tensor, classes: int, rate: float, rounds: int, cached: bool = False) -> Row:
    """One row: every class on every photo."""
    prompts = [Text(name, TEMPLATE) for name in CLASSES[classes]]
    ids = clip_tokenizer()([TEMPLATE[0].format(name) for name in CLASSES[classes]])
    ids = torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]))  # as transformers' processor pads them
    mask = (torch.arange(77) <= ids.argmax(-1, keepdim=True)).long()
    kept = model.encode_prompts(prompts) if cached else None

    def own() -> Tensor:
        return model.decode(model.encode_image(pixels), kept or model.encode_prompts(prompts)).whole

    def other() -> Tensor:
        logits: Tensor = peer(input_ids=ids, pixel_values=pixels, attention_mask=mask).logits_per_image
        return logits

    mine, its = trial(own), trial(other)
    own_s, other_s = in_turn(own, other, rounds)
    return Row(
        work=work,
        ours_s=own_s,
        peer="transformers",
        peer_s=other_s,
        ratio=other_s / own_s,
        max_difference=float((mine.result - its.result).abs().max()),
        ours_gemm_share=mine.flops / own_s / rate,
        peer_gemm_share=its.flops / other_s / rate,
        ours_peak_mb=mine.peak_mb,
        peer_peak_mb=its.peak_mb,
    )


def main() -> None:
    """Time all rows and report."""
    options = parser(__doc__ or "").parse_args()
    peer = peer_model()
    model = Model.from_official(GroupVitConfig(), peer.state_dict())
    pixels, facts, rate = photos(), machine(), gemm_rate()
    with torch.inference_mode():
        rows = [compare(f"{count} classes", model, peer, pixels[:1], count, rate, options.rounds) for count in CLASSES]
        rows += [compare("batch 8", model, peer, pixels, 21, rate, options.rounds)]
        rows += [compare(f"{count} classes, cached", model, peer, pixels[:1], count, rate, options.rounds, True) for count in CLASSES]
        rows += [compare("batch 8, cached", model, peer, pixels, 21, rate, options.rounds, True)]
    report(facts, rows, options.json)


if __name__ == "__main__":
    main()
