"""Memory that exports take: many masks of a large photograph, each export in a process of its own.

    python benchmarks/results.py [--masks 300] [--size 4000x3000] [--cells 112,352] [--exports geojson,save] [--json FILE]

Logit maps of ``cells`` x ``cells`` hold blobs with ragged edges and specks; the first line says how many corners their outlines have. The
peak is counted from the loaded package on: logits, photograph and what the export returns are in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from common import peak_mb, seconds
from promptseg import Masks, Text
from promptseg.errors import MemoryLimitError
from promptseg.polygons import trace

LIMIT_MB = 1000
Export = Callable[[Masks, Path], Any]

EXPORTS: dict[str, Export] = {
    "facts": lambda masks, folder: (masks.scores, masks.areas, masks.boxes),
    "overlay": lambda masks, folder: masks.overlay(),
    "png": lambda masks, folder: masks.to_png(),
    "coco": lambda masks, folder: masks.to_coco(),
    "geojson": lambda masks, folder: masks.to_geojson(),
    "yolo": lambda masks, folder: masks.to_yolo(),
    "hf": lambda masks, folder: [entry["mask"].getbbox() for entry in masks.to_hf()],
    "save": lambda masks, folder: masks.save(folder / "all", "overlay,png,coco,geojson,yolo,npz"),
    "save geojson": lambda masks, folder: masks.save(folder / "masks.geojson"),
}


def blobs(count: int, cells: int, seed: int = 0) -> np.ndarray:
    """(count, cells, cells) float32 logits: a coarse shape, an edge that wanders over some cells, and finer noise."""
    random = torch.Generator().manual_seed(seed)

    def field(grid: int) -> torch.Tensor:
        return F.interpolate(torch.randn(count, 1, grid, grid, generator=random), (cells, cells), mode="bilinear")[:, 0]

    return (4 * field(5) + 1.5 * field(cells // 8) + 0.5 * field(56) - 2).numpy()


def result(count: int, cells: int, size: tuple[int, int], photo: Path | None) -> Masks:
    """Masks of a photo of ``size`` (H, W)."""
    return Masks.from_logits(blobs(count, cells), size, [Text(f"thing {index}") for index in range(count)], photo=photo)


def alone(name: str, count: int, cells: int, size: tuple[int, int]) -> dict[str, Any]:
    """One export in this process: its peak in MB and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        photo, small = Path(folder) / "photo.jpg", Path(folder) / "small.jpg"
        Image.effect_noise((size[1], size[0]), 60).convert("RGB").save(photo)
        Image.new("RGB", (40, 30)).save(small)
        EXPORTS[name](result(2, 8, (30, 40), small), Path(folder) / "small")  # imports what the export needs
        kept: list[Any] = []
        row: dict[str, Any] = {"export": name, "cells": cells}

        def work() -> None:
            masks = result(count, cells, size, photo)
            try:
                row["seconds"] = round(seconds(lambda: kept.append(EXPORTS[name](masks, Path(folder)))), 1)
            except MemoryLimitError as error:
                row["refused"] = str(error)

        return row | {"peak_mb": round(peak_mb(work), 1)}


def corners(cells: int, size: tuple[int, int], count: int = 5) -> int:
    """Corners of an outline, the mean of some masks."""
    polygons = [trace(mask.mask) for mask in result(count, cells, size, None)]
    return sum(len(ring) for one in polygons for polygon in one for ring in polygon) // count


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--masks", type=int, default=300)
    options.add_argument("--size", default="4000x3000", help="width x height")
    options.add_argument("--cells", default="112,352")
    options.add_argument("--exports", default=",".join(EXPORTS))
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    width, height = map(int, given.size.split("x"))
    if given.alone:
        print(json.dumps(alone(given.exports, given.masks, int(given.cells), (height, width))))
        return
    rows = []
    for cells in map(int, given.cells.split(",")):
        print(f"{given.masks} masks of {width}x{height} pixels from {cells}x{cells} logits, {corners(cells, (height, width))} corners each")
        for name in given.exports.split(","):
            command = [sys.executable, __file__, "--alone", "--exports", name, "--cells", str(cells)]
            command += ["--masks", str(given.masks), "--size", given.size]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            over = "  above the limit" if rows[-1]["peak_mb"] > LIMIT_MB else ""
            took = f"{rows[-1]['seconds']:8.1f} s" if "seconds" in rows[-1] else f"refused: {rows[-1]['refused']}"
            print(f"{name:<14} {rows[-1]['peak_mb']:7.0f} MB {took}{over}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps({"masks": given.masks, "size": given.size, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
