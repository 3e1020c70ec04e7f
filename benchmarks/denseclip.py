"""DenseCLIP's segmenters at full size: what keeping the names' embeddings saves, and transformers' segmenters of like size beside it.

    python benchmarks/denseclip.py [--json FILE]

Random weights, one square photograph of one window, ADE20K's 150 classes. Ours has the embeddings of the names at hand, as the
`Segmenter` keeps them; its first peer is the same network with the text tower run each time. The others are SegFormer-B4 (64 M parameters)
and UperNet on Swin-S (80 M), which have other weights and give other answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common import Row, gemm_rate, in_turn, machine, parser, report, trial
from promptseg.models.denseclip.cards import fpn_r50, fpn_vitb
from promptseg.models.denseclip.network import Model
from promptseg.prompts import Text

CLASSES = 150


def segformer() -> Any:
    """transformers' SegFormer-B4 with random weights."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes: dict[str, Any] = {"depths": [3, 8, 27, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
    labels: dict[str, Any] = {"num_labels": CLASSES}
    peer: Any = SegformerForSemanticSegmentation(SegformerConfig(**sizes, **labels))
    return peer.eval()


def upernet() -> Any:
    """transformers' UperNet on Swin-S with random weights."""
    from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

    sizes: dict[str, Any] = {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
    head: dict[str, Any] = {"num_labels": CLASSES, "use_auxiliary_head": False}
    levels: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    swin: Any = SwinConfig(**sizes, **levels)
    peer: Any = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=swin, **head))
    return peer.eval()


def compare(work: str, own: Callable[[], Tensor], peer: str, other: Callable[[], Tensor], rate: float, rounds: int, same: bool) -> Row:
    """One row; ``same``: both compute the same."""
    mine, its = trial(own), trial(other)
    own_s, other_s = in_turn(own, other, rounds)
    return Row(
        work=work, ours_s=own_s, peer=peer, peer_s=other_s, ratio=other_s / own_s,
        max_difference=float((mine.result - its.result).abs().max()) if same else None,
        ours_gemm_share=mine.flops / own_s / rate, peer_gemm_share=its.flops / other_s / rate,
        ours_peak_mb=mine.peak_mb, peer_peak_mb=its.peak_mb,
    )  # fmt: skip


def rows(work: str, model: Model, side: int, rate: float, rounds: int) -> list[Row]:
    """A network against itself and against the peers."""
    pixels = torch.randn(1, 3, side, side)
    prompts = [Text(name) for name in model.classes]
    kept = model.encode_prompts(prompts)

    def cached() -> Tensor:
        return model.decode(model.encode_image(pixels), kept).logits

    def anew() -> Tensor:
        return model.decode(model.encode_image(pixels), model.encode_prompts(prompts)).logits

    found = [compare(work, cached, "text tower each time", anew, rate, rounds, True)]
    for name, make in (("SegFormer-B4", segformer), ("UperNet Swin-S", upernet)):
        peer = make()

        def other(peer: Any = peer) -> Tensor:
            logits: Tensor = peer(pixels).logits
            return logits

        found.append(compare(work, cached, name, other, rate, rounds, False))
    return found


@torch.inference_mode()
def main() -> None:
    """Both published kinds of image tower."""
    options = parser(__doc__ or "").parse_args()
    torch.manual_seed(0)
    facts, rate = machine(), gemm_rate()
    found = []
    for work, config, side in (("R50 512", fpn_r50(), 512), ("ViT-B 640", fpn_vitb(), 640)):
        found += rows(work, Model(config).eval(), side, rate, options.rounds)
    report(facts, found, options.json)


if __name__ == "__main__":
    main()
