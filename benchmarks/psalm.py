"""PSALM at full size with random weights: a further prompt on a photo that is already encoded, against the whole forward pass.

    python benchmarks/psalm.py [--json FILE] [--precision float32|bfloat16] [--size 512] [--device cpu] [--more]

Prompts are those of a reference case, in the published tokens; only the words of the sentence change from prompt to prompt. "Further
prompt" runs what `Segmenter` runs for another expression about the same photo: the language model behind the image, and the mask decoder.
``--more`` adds 5 and 20 prompts and the full 1024 pixels, each timed once. Weights take 6.3 GB in float32, half of that in bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file
from torch import Tensor

from common import Row, in_turn, machine, parser, peak_mb, report, seconds
from promptseg.images import load
from promptseg.models.psalm import Model, PsalmConfig
from promptseg.models.psalm.network import PsalmImage
from promptseg.models.psalm.photos import to_input
from promptseg.models.psalm.tokens import IMAGE, PromptBatch

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "dog.jpg"
PROMPT = ROOT / "tests" / "golden" / "psalm" / "tiny_grefer_notarget.safetensors"


def network(dtype: torch.dtype, device: str) -> Model:
    """Random weights, made where they stay."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Model(PsalmConfig()).to(dtype)
    model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
        for name, buffer in model.named_buffers():
            buffer.fill_(1.0 if name.endswith("var") else 0.0)
    return model.eval()


def prompts(count: int, device: str) -> list[PromptBatch]:
    """Referring prompts whose sentences have other words."""
    stored = load_file(PROMPT)
    ids, sentence = stored["input_ids"].to(device), stored["token_refer_id_0"]
    said = [((sentence + 7 * number) % 50000).to(device) for number in range(count)]
    return [PromptBatch(ids, ids, torch.ones_like(ids, dtype=torch.bool), sentence_ids=(one,)) for one in said]


def encode(model: Model, pixels: Tensor, prompt: PromptBatch) -> PsalmImage:
    """A photo, and the prompt's opening read with it."""
    image = model.encode_image(pixels)
    place = int((prompt.ids[0] == IMAGE).nonzero()[0])
    return replace(image, prefix=model.before(image.tokens, prompt.ids[0, : place + 1]))


def answer(model: Model, image: PsalmImage, prompt: PromptBatch) -> Tensor:
    """Mask logits of all queries on the CPU."""
    place = int((prompt.ids[0] == IMAGE).nonzero()[0]) + 1
    rest = replace(prompt, ids=prompt.ids[:, place:], labels=prompt.labels[:, place:], attention=prompt.attention[:, place:])
    return model.predict(image.seen, model.understand(rest, None, None, image.prefix))[-1].masks.cpu()


def further(model: Model, pixels: Tensor, count: int, rounds: int, name: str) -> Row:
    """One row: ``count`` prompts on an encoded photo, and the same with the photo encoded for each."""
    asked = prompts(count, str(pixels.device))
    image = encode(model, pixels, asked[0])

    def own() -> list[Tensor]:
        return [answer(model, image, prompt) for prompt in asked]

    def whole() -> list[Tensor]:
        return [answer(model, encode(model, pixels, prompt), prompt) for prompt in asked]

    difference = max(float((a - b).abs().max()) for a, b in zip(own(), whole(), strict=True)) if rounds > 1 else None
    own_s, whole_s = in_turn(own, whole, rounds) if rounds > 1 else (seconds(own), seconds(whole))
    return Row(name, own_s, "whole forward", whole_s, whole_s / own_s, difference, ours_peak_mb=peak_mb(own), peer_peak_mb=peak_mb(whole))


def main() -> None:
    """Time all rows and report."""
    options = parser(__doc__ or "")
    options.set_defaults(rounds=3)
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--size", type=int, default=512, help="side of the network's input")
    options.add_argument("--device", default="cpu")
    options.add_argument("--more", action="store_true", help="also 5 and 20 prompts and 1024 pixels, once each")
    given = options.parse_args()
    dtype = torch.float32 if given.precision == "float32" else torch.bfloat16
    facts = machine()
    model = network(dtype, given.device)
    weights_mb = sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6

    def pixels(side: int) -> Tensor:
        return to_input(load(PHOTO), side)[None].to(given.device, dtype)

    with torch.inference_mode():
        rows = [further(model, pixels(given.size), 1, given.rounds, f"further prompt, {given.size} px, {given.precision}")]
        if given.more:
            rows += [further(model, pixels(given.size), n, 1, f"{n} prompts, {given.size} px, {given.precision}") for n in (5, 20)]
            rows.append(further(model, pixels(1024), 1, 1, f"further prompt, 1024 px, {given.precision}"))
    facts |= {"precision": given.precision, "weights_mb": round(weights_mb), "resident_mb": round(psutil.Process().memory_info().rss / 1e6)}
    report(facts, rows, given.json)


if __name__ == "__main__":
    main()
