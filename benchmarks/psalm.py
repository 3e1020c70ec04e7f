"""PSALM at full size with random weights: a further prompt on a photo that is already encoded, against the whole forward pass; loading.

    python benchmarks/psalm.py [--rows further,5,20,1024,load] [--precision float32|bfloat16] [--size 512] [--device cpu] [--json FILE]

"further": what `Segmenter` runs for another expression about the same photo, the language model behind the image and the mask decoder,
timed in turn with the whole pass. "5" and "20" prompts and "1024" pixels run once, ours alone. Prompts are those of a reference case, in
the published tokens; only the words of the sentence change. Weights take 6.3 GB in float32, half of that in bfloat16.

"load": `promptseg.load` of a checkpoint in the published layout, which is written in shards to a temporary folder (3.2 GB in bfloat16; in
``--stored`` float32 6.3 GB; ``--folder`` says where), by a process of its own. Its peak holds the weights; the others are above them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file
from torch import Tensor

from common import Row, Work, in_turn, machine, parser, peak_mb, report, seconds
from promptseg import images
from promptseg.models.psalm import LAYOUTS, Model, PsalmConfig
from promptseg.models.psalm.network import PsalmImage
from promptseg.models.psalm.photos import to_input
from promptseg.models.psalm.tokens import IMAGE, PromptBatch
from promptseg.nn.conversion import to_official
from promptseg.segmenter import load

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "dog.jpg"
PROMPT = ROOT / "tests" / "golden" / "psalm" / "tiny_grefer_notarget.safetensors"
ROWS = ("further", "5", "20", "1024", "load")
FASTER = 1.5  # a further prompt than the whole pass, at least
SHARE, HALF_MB = 0.25, 1600.0  # peak memory beside the weights, at most: of the weights in float32, in bfloat16
SHARD_BYTES = 10**9


def empty(dtype: torch.dtype) -> Model:
    """The network without memory."""
    with torch.device("meta"):
        return Model(PsalmConfig()).to(dtype)


def random(tensor: Tensor) -> Tensor:
    return tensor.normal_(std=tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)


def network(dtype: torch.dtype, device: str) -> Model:
    """Random weights, made where they stay."""
    torch.manual_seed(0)
    model = empty(dtype).to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            random(parameter)
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


def peak(work: Work, device: str) -> float:
    """MB above what was held before, on the device that computes."""
    if device == "cpu":
        return peak_mb(work)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def further(model: Model, pixels: Tensor, rounds: int, name: str) -> Row:
    """A prompt on an encoded photo, and the same with the photo encoded for it."""
    (asked,) = prompts(1, str(pixels.device))
    image = encode(model, pixels, asked)

    def own() -> Tensor:
        return answer(model, image, asked)

    def whole() -> Tensor:
        return answer(model, encode(model, pixels, asked), asked)

    difference = float((own() - whole()).abs().max())
    own_s, whole_s = in_turn(own, whole, rounds)
    peaks = [peak(work, str(pixels.device)) for work in (own, whole)]
    return Row(name, own_s, "whole forward", whole_s, whole_s / own_s, difference, ours_peak_mb=peaks[0], peer_peak_mb=peaks[1])


def once(model: Model, pixels: Tensor, count: int, name: str) -> Row:
    """``count`` prompts on an encoded photo; encoding it is in the peak, and not in the seconds."""
    asked, took = prompts(count, str(pixels.device)), list[float]()

    def work() -> None:
        image = encode(model, pixels, asked[0])
        took.append(seconds(lambda: [answer(model, image, prompt) for prompt in asked]))

    return Row(name, ours_peak_mb=peak(work, str(pixels.device)), ours_s=took[0])


def write(folder: Path, dtype: torch.dtype) -> None:
    """A checkpoint of random weights as it is published, shard by shard."""
    torch.manual_seed(0)
    shapes, shards, places = to_official(LAYOUTS["official"], empty(dtype).state_dict()), list[list[str]]([[]]), dict[str, str]()
    for name, tensor in shapes.items():
        if sum(shapes[other].nbytes for other in shards[-1]) + tensor.nbytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(name)
    for number, names in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        torch.save({name: random(torch.empty(shapes[name].shape, dtype=dtype)) for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def loaded(given: argparse.Namespace) -> Row:
    """A checkpoint read in a fresh process."""
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Path(folder), getattr(torch, given.stored))
        command = [sys.executable, __file__, "--alone", folder, "--precision", given.precision, "--device", given.device]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return Row(f"load, {given.stored} to {given.precision}", row["seconds"], ours_peak_mb=row["peak_mb"])


def alone(given: argparse.Namespace) -> dict[str, float]:
    """Loading in this process: its seconds, and its peak of the machine's memory in MB, counted from the imported package on."""
    took, kept = list[float](), list[Any]()

    def work() -> None:
        kept.append(load(given.alone, card="psalm", device=given.device, precision=given.precision))

    return {"peak_mb": peak_mb(lambda: took.append(seconds(work))), "seconds": took[0]}


def limits(rows: list[Row], weights_mb: float, precision: str) -> dict[str, str]:
    """What is promised of each row, and whether it holds."""
    allowed, found = SHARE * weights_mb if precision == "float32" else HALF_MB, dict[str, str]()
    for row in rows:
        above = (row.ours_peak_mb or 0) - (weights_mb if row.work.startswith("load") else 0)
        found[f"{row.work}: memory beside the weights"] = f"{above:.0f} MB of at most {allowed:.0f}, {_met(above <= allowed)}"
        if row.ratio is not None:
            found[f"{row.work}: faster"] = f"{row.ratio:.2f}x of at least {FASTER}x, {_met(row.ratio >= FASTER)}"
    return found


def _met(holds: bool) -> str:
    return "met" if holds else "NOT MET"


def main() -> None:
    """Time all rows and report."""
    options = parser(__doc__ or "")
    options.set_defaults(rounds=3)
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--size", type=int, default=512, help="side of the network's input")
    options.add_argument("--device", default="cpu")
    options.add_argument("--rows", default="further", help=f"some of {','.join(ROWS)}")
    options.add_argument(
        "--stored", choices=("float32", "bfloat16", "float16"), default="bfloat16", help="of the checkpoint that is loaded"
    )
    options.add_argument("--folder", type=Path, help="where the checkpoint is written, instead of the system's temporary folder")
    options.add_argument("--alone", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.alone:
        print(json.dumps(alone(given)))
        return
    wanted, dtype, facts = given.rows.split(","), getattr(torch, given.precision), machine()
    if unknown := set(wanted) - set(ROWS):
        options.error(f"rows are some of {', '.join(ROWS)}, not {', '.join(sorted(unknown))}")
    weights_mb = sum(tensor.nbytes for tensor in empty(dtype).state_dict().values()) / 1e6
    facts |= {"precision": given.precision, "weights_mb": round(weights_mb)}
    rows = [loaded(given)] if "load" in wanted else []  # first: there may not be room for the network beside it
    if wanted != ["load"]:
        model = network(dtype, given.device)
        facts["resident_mb"] = round(psutil.Process().memory_info().rss / 1e6)

        def pixels(side: int) -> Tensor:
            return to_input(images.load(PHOTO), side)[None].to(given.device, dtype)

        with torch.inference_mode():
            if "further" in wanted:
                rows.append(further(model, pixels(given.size), given.rounds, f"further prompt, {given.size} px, {given.precision}"))
            for count in (5, 20):
                if str(count) in wanted:
                    rows.append(once(model, pixels(given.size), count, f"{count} prompts, {given.size} px, {given.precision}"))
            if "1024" in wanted:
                rows.append(once(model, pixels(1024), 1, f"further prompt, 1024 px, {given.precision}"))
    report(facts | limits(rows, weights_mb, given.precision), rows, given.json)


if __name__ == "__main__":
    main()
