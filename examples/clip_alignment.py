"""Which way of marking a thing does CLIP understand? The CLIPSeg paper's table 7, on photographs with COCO-style annotations.

    python examples/clip_alignment.py --data ROOT [--model clipseg-rd64] [--photos 50]

ROOT holds ``images/`` and ``instances.json``. The model may be any whose image and text towers are CLIP's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from promptseg import zoo
from promptseg.data.photosets import coco
from promptseg.errors import WeightsNotFound
from promptseg.images import load
from promptseg.models.clipseg import ClipSegConfig, Model
from promptseg.models.clipseg.alignment import Sample, clip_alignment
from promptseg.nn.clip import Clip


def network(name: str) -> Clip:
    """The named model, or random weights with a loud word about it."""
    try:
        model, _ = zoo.load(name)
    except WeightsNotFound as error:
        print(f"!!! RANDOM WEIGHTS: the figures below mean nothing. {error}\n")
        torch.manual_seed(0)
        model = Model(ClipSegConfig()).eval()
    if not isinstance(model, Clip):
        raise SystemExit(f"{name} has no CLIP towers; choose one that has, such as clipseg-rd64.")
    return model


def photographs(root: Path, names: int) -> Iterator[Sample]:
    """Photos that show at least so many named things."""
    for photo in coco(root):
        if len(photo.present) >= names:
            masks, _ = photo.masks()
            yield load(photo.path), dict(masks)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT")
    parser.add_argument("--model", default="clipseg-rd64")
    parser.add_argument("--photos", type=int, default=50)
    options = parser.parse_args()
    rows = clip_alignment(network(options.model), islice(photographs(options.data, 3), options.photos))
    print(f"{'variant':<32} {'cosine':>8} {'P(object)':>10} {'gain':>8} {'paper':>8}")
    for row in rows:
        paper = "" if row.published is None else f"{row.published:+.2f}"
        print(f"{row.variant:<32} {row.cosine:8.3f} {row.probability:10.3f} {row.gain:+8.2f} {paper:>8}")


if __name__ == "__main__":
    main()
