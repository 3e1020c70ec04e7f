"""CLIPSeg against transformers: the same random full-size weights, timed in turn in one process.

    python benchmarks/clipseg.py [--json FILE] [--photos FOLDER]

Texts are encoded anew each time. transformers wants one image per prompt, so it is given as many copies; pixels and token ids are prepared
before the clock starts for both. Ours in bfloat16 is timed against ours in float32 as well; the rows say whether `precision="auto"` would
take it on this machine. ``--photos``: how far masks in bfloat16 agree is measured on up to `AGREEING` photos of this folder, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import Row, gemm_rate, in_turn, machine, parser, report, trial
from promptseg.contracts import Options
from promptseg.devices import choose_precision
from promptseg.images import load, to_pixels
from promptseg.models.clipseg import ClipSegConfig, Model
from promptseg.nn.views import views
from promptseg.prompts import Text
from promptseg.tokenizers import clip as clip_tokenizer

PHOTO = Path(__file__).parents[1] / "examples" / "dog.jpg"
THINGS = ("dog", "grass", "sky", "red car", "wooden table", "person in a blue shirt", "window", "traffic light", "cup of tea", "tree")
KINDS = ("a {}", "the {}", "a small {}", "a photo of a {}", "something like a {}")
AGREEING = 64  # photos, spread over the folder
PHRASES = [kind.format(thing) for kind in KINDS for thing in THINGS]  # fifty


def peer_model() -> Any:
    """transformers' model with random weights and the published sizes."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    torch.manual_seed(0)
    vision = {"hidden_act": "quick_gelu", "patch_size": 16, "image_size": 224}
    peer: Any = CLIPSegForImageSegmentation(CLIPSegConfig(vision_config=vision, text_config={"hidden_act": "quick_gelu"}))
    return peer.eval()


def photos() -> Tensor:
    """(8, 3, 352, 352): the example photo and seven crops of it."""
    photo, config = load(PHOTO), ClipSegConfig()
    H, W = photo.shape[:2]
    crops = [photo[i * H // 20 : H - i * H // 25, i * W // 22 : W - i * W // 30] for i in range(8)]
    shown = [(crop, views((crop.shape[0], crop.shape[1]), Options(), config.preprocess)[0]) for crop in crops]
    return torch.stack([to_pixels(crop, view, config.preprocess) for crop, view in shown])


def shown(files: list[Path]) -> Tensor:
    """(N, 3, 352, 352)."""
    config = ClipSegConfig()
    pictures = [load(file) for file in files]
    return torch.stack(
        [
            to_pixels(photo, views((photo.shape[0], photo.shape[1]), Options(), config.preprocess)[0], config.preprocess)
            for photo in pictures
        ]
    )


def agreement(low: Model, full: Model, folder: Path) -> str:
    """How masks in bfloat16 and in float32 agree on the photos of a folder, ten phrases each."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = files[:: max(1, len(files) // AGREEING)][:AGREEING]
    found = torch.cat([ious(low, full, shown(files[start : start + 4]), PHRASES[:10])[0].flatten() for start in range(0, len(files), 4)])
    low_end = float(found.quantile(0.01))
    return (
        f"bfloat16 on {len(files)} photos, 10 phrases each: mask IoU with float32 at least {float(found.min()):.4f}, "
        f"99 % of them at least {low_end:.4f}, mean {float(found.mean()):.4f}"
    )


def ious(low: Model, full: Model, pixels: Tensor, phrases: list[str]) -> tuple[Tensor, float]:
    """IoU of the masks (B, N), cut at the float32 median, as random weights have no threshold; and the largest difference of logits."""
    a, b = ours(low, pixels.bfloat16(), phrases).float().flatten(2), ours(full, pixels, phrases).flatten(2)
    cut = b.median(-1, keepdim=True).values
    return ((a > cut) & (b > cut)).sum(-1) / ((a > cut) | (b > cut)).sum(-1), float((a - b).abs().max())


def ours(model: Model, pixels: Tensor, phrases: list[str]) -> Tensor:
    """Photos (B, 3, h, w) and N phrases -> (B, N, h, w)."""
    return model.decode(model.encode_image(pixels), model.encode_prompts([Text(phrase) for phrase in phrases])).logits


def theirs(model: Any, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """One image per phrase -> (N, h, w)."""
    logits: Tensor = model(input_ids=ids, pixel_values=pixels, attention_mask=mask).logits
    return logits


def compare(work: str, model: Model, peer: Any, pixels: Tensor, phrases: list[str], rate: float, rounds: int) -> Row:
    """One row: every phrase on every photo; for the peer the pairs are spelled out."""
    ids = clip_tokenizer()([phrase for _ in pixels for phrase in phrases])
    mask = (torch.arange(ids.shape[1]) <= ids.argmax(-1, keepdim=True)).long()
    copies = pixels.repeat_interleave(len(phrases), 0)

    def own() -> Tensor:
        return ours(model, pixels, phrases)

    def other() -> Tensor:
        return theirs(peer, copies, ids, mask)

    mine, its = trial(own), trial(other)
    own_s, other_s = in_turn(own, other, rounds)
    return Row(
        work=work,
        ours_s=own_s,
        peer="transformers",
        peer_s=other_s,
        ratio=other_s / own_s,
        max_difference=float((mine.result.flatten(0, 1) - its.result.view(-1, *pixels.shape[-2:])).abs().max()),
        ours_gemm_share=mine.flops / own_s / rate,
        peer_gemm_share=its.flops / other_s / rate,
        ours_peak_mb=mine.peak_mb,
        peer_peak_mb=its.peak_mb,
    )


def compare_precision(work: str, low: Model, full: Model, pixels: Tensor, phrases: list[str], rounds: int) -> Row:
    """One row: ours in bfloat16 against ours in float32."""

    def own() -> Tensor:
        return ours(low, pixels.bfloat16(), phrases)

    def other() -> Tensor:
        return ours(full, pixels, phrases)

    found, difference = ious(low, full, pixels, phrases)
    own_s, other_s = in_turn(own, other, rounds)
    return Row(work, own_s, "promptseg float32", other_s, other_s / own_s, difference, mask_iou=float(found.min()))


def main() -> None:
    """Time all rows and report."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--photos", type=Path, help="a folder of photos on which the agreement of precisions is measured")
    options = arguments.parse_args()
    peer = peer_model()
    model = Model.from_official(ClipSegConfig(), peer.state_dict())
    pixels, facts, rate = photos(), machine(), gemm_rate()
    with torch.inference_mode():
        rows = [compare(f"{n} prompt{'s' * (n > 1)}", model, peer, pixels[:1], PHRASES[:n], rate, options.rounds) for n in (1, 10, 50)]
        rows.append(compare("8 images", model, peer, pixels, PHRASES[:1], rate, options.rounds))
        chosen = choose_precision("auto", torch.device("cpu")) == torch.bfloat16
        name = "bfloat16 (auto)" if chosen else "bfloat16 (if asked for)"
        low = Model.from_official(ClipSegConfig(), peer.state_dict()).bfloat16()
        for what, images, phrases in (
            ("1 prompt", 1, PHRASES[:1]),
            ("10 prompts", 1, PHRASES[:10]),
            ("50 prompts", 1, PHRASES[:50]),
            ("8 images", len(pixels), PHRASES[:1]),
        ):
            rows.append(compare_precision(f"{name}, {what}", low, model, pixels[:images], phrases, options.rounds))
        agreed = None if options.photos is None else agreement(low, model, options.photos)
    report(facts, rows, options.json)
    if agreed is not None:
        print(agreed)


if __name__ == "__main__":
    main()
