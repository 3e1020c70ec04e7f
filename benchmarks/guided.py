"""What ``upsample="guided"`` gains over bilinear enlargement: ``python benchmarks/guided.py --data ROOT [--json FILE] [--model NAME]``.

Ground-truth masks of real photographs (MSRC, COCO, DAVIS), averaged down to grids of 32 to 88 cells, stand in for a network's logits: once
as they are, once with the blur and the uneven confidence that networks have. "no photo" is the same enlargement on a blank photo: what the
cells alone tell. With ``--model`` a model's own masks for the names of the things are measured instead. Scores are boundary IoU (Cheng et
al. 2021: mask pixels within 2 % of the diagonal of the outline; a tight band of 0.5 % besides) and plain IoU, means over masks. The
constants were tuned on photographs with an even checksum; only odd ones are measured here.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from promptseg.guided import Guide
from promptseg.images import load
from promptseg.metrics import boundary_iou, iou
from promptseg.postprocess import enlarge

BoolArray: TypeAlias = NDArray[np.bool_]
GRIDS = (32, 44, 64, 88)
BANDS = (0.02, 0.005)  # of the diagonal
LEAST_SHARE = 0.02  # of the photo that a mask covers


@dataclass(frozen=True, slots=True)
class Sample:
    """A mask and the pixels in which it is known; ``name`` is what to call the thing."""

    source: str
    path: Path
    photo: NDArray[np.uint8]
    mask: BoolArray
    known: BoolArray
    name: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with msrc/, coco/, coco_person/ and davis/")
    parser.add_argument("--photos", type=int, default=25, help="photographs per set")
    parser.add_argument("--model", help="measure this model's masks instead of stand-ins")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    samples = [sample for source in SOURCES for sample in _some(SOURCES[source](arguments.data), arguments.photos)]
    print(f"{'logits':28}{'enlarged':>10}{'bIoU 2%':>10}{'bIoU 0.5%':>11}{'IoU':>8}{'ms':>7}   masks")
    rows = []
    for row in _model_rows(samples, arguments.model) if arguments.model else _stand_in_rows(samples):
        rows.append(row)
        figures = f"{row['biou']:10.4f}{row['biou_tight']:11.4f}{row['iou']:8.4f}{row['ms']:7.0f}{row['masks']:8d}"
        print(f"{row['work']:28}{row['how']:>10}{figures}", flush=True)
    if arguments.json:
        machine = {"cpu": platform.processor(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


# --- what is measured -------------------------------------------------------------------------------------------------------------------


def _stand_in_rows(samples: list[Sample]) -> Iterator[dict[str, Any]]:
    for noisy in (False, True):
        for grid in GRIDS:
            work = f"{grid} cells{', like a network' if noisy else ', exact shares'}"
            yield from _compare(work, [(sample, _stand_in(sample.mask, grid, noisy)) for sample in samples])


def _model_rows(samples: list[Sample], name: str) -> Iterator[dict[str, Any]]:
    """The model's logits, taken before they are enlarged."""
    import promptseg

    segmenter = promptseg.load(name)
    answers = [(sample, segmenter(str(sample.path), sample.name)[0].logits) for sample in samples]
    pairs = [(sample, logits) for sample, logits in answers if logits is not None]
    for source in SOURCES:
        if of_source := [pair for pair in pairs if pair[0].source == source]:
            yield from _compare(f"{name} on {source}", of_source)


def _compare(work: str, pairs: list[tuple[Sample, NDArray[np.floating]]]) -> list[dict[str, Any]]:
    """Every enlargement on every pair, one row each."""
    scores: dict[str, list[list[float]]] = {"bilinear": [], "no photo": [], "guided": []}
    seconds = dict.fromkeys(scores, 0.0)
    for sample, logits in pairs:
        size = (sample.mask.shape[0], sample.mask.shape[1])
        ways: dict[str, Callable[[NDArray[np.floating]], NDArray[np.float32]]] = {
            "bilinear": partial(enlarge, size=size),
            "no photo": Guide(np.zeros_like(sample.photo)).enlarge,
            "guided": Guide(sample.photo).enlarge,
        }
        for how, enlarged in ways.items():
            start = time.perf_counter()
            fine = enlarged(logits)
            seconds[how] += time.perf_counter() - start
            scores[how].append(_scores(sample, fine > 0))
    return [
        dict(zip(("biou", "biou_tight", "iou"), np.mean(values, axis=0).tolist(), strict=True))
        | {"work": work, "how": how, "masks": len(values), "ms": 1000 * seconds[how] / len(values)}
        for how, values in scores.items()
    ]


def _stand_in(mask: BoolArray, grid: int, noisy: bool) -> NDArray[np.float32]:
    """A grid x grid map of logits; noisy: blurred over 3 x 3 cells and shifted by smooth noise of 1.2 logits."""
    shares = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), (grid, grid))
    logits = shares.clamp(0.02, 0.98).logit()
    if noisy:
        generator = torch.Generator().manual_seed(int(mask.sum()) + grid)
        noise = torch.randn(1, 1, grid // 2, grid // 2, generator=generator)
        blurred = F.avg_pool2d(F.pad(logits, (1, 1, 1, 1), mode="replicate"), 3, 1)
        logits = blurred + 1.2 * F.interpolate(noise, (grid, grid), mode="bilinear", align_corners=False)[0]
    return logits[0].numpy()


def _scores(sample: Sample, found: BoolArray) -> list[float]:
    pair = (found, sample.mask, sample.known)
    return [*(boundary_iou(*pair, share) for share in BANDS), iou(*pair)]


# --- photographs ------------------------------------------------------------------------------------------------------------------------


def _odd(name: str) -> bool:
    return zlib.crc32(name.encode()) % 2 == 1


def _some(samples: Iterator[Sample], count: int) -> Iterator[Sample]:
    for _, sample in zip(range(count), samples, strict=False):
        yield sample


def _coco(folder: Path) -> Iterator[Sample]:
    """The largest category of every photo."""
    from pycocotools.coco import COCO

    coco = COCO(folder / "instances.json")
    for identity in sorted(coco.getImgIds()):
        if not _odd(str(identity)):
            continue
        path = folder / "images" / Path(coco.loadImgs(identity)[0]["file_name"]).name
        by_category: dict[int, BoolArray] = {}
        for annotation in coco.loadAnns(coco.getAnnIds(identity, iscrowd=False)):
            mask = coco.annToMask(annotation).astype(np.bool_)
            by_category[annotation["category_id"]] = by_category.get(annotation["category_id"], np.zeros_like(mask)) | mask
        category, mask = max(by_category.items(), key=lambda item: int(item[1].sum()), default=(0, np.zeros((1, 1), dtype=np.bool_)))
        if mask.mean() >= LEAST_SHARE:
            yield Sample(folder.name, path, load(path), mask, np.ones_like(mask), coco.cats[category]["name"])


def _msrc(folder: Path) -> Iterator[Sample]:
    """The largest class of every photo; unlabelled pixels are not known."""
    from PIL import Image

    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    for file in sorted((folder / "labels").glob("*.png")):
        labels = np.asarray(Image.open(file))
        counts = np.bincount(labels.ravel(), minlength=2)[1:]
        if _odd(file.stem) and counts.max() >= LEAST_SHARE * labels.size:
            value = int(counts.argmax()) + 1
            path = folder / "images" / f"{file.stem}.jpg"
            yield Sample("msrc", path, load(path), labels == value, labels > 0, names[value - 1])


def _davis(folder: Path) -> Iterator[Sample]:
    """Every fourth frame of every second sequence."""
    from PIL import Image

    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    for sequence in sorted((folder / "Annotations" / "480p").iterdir())[1::2]:
        for file in sorted(sequence.glob("*.png"))[::4]:
            mask = np.asarray(Image.open(file)) > 0
            path = folder / "JPEGImages" / "480p" / sequence.name / f"{file.stem}.jpg"
            if mask.any():
                yield Sample("davis", path, load(path), mask, np.ones_like(mask), str(prompts[sequence.name]))


SOURCES = {
    "msrc": lambda root: _msrc(root / "msrc"),
    "coco": lambda root: _coco(root / "coco"),
    "coco_person": lambda root: _coco(root / "coco_person"),
    "davis": lambda root: _davis(root / "davis"),
}

if __name__ == "__main__":
    main()
