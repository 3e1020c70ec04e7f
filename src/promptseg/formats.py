"""Masks in the formats of other programs. Each function takes one mask, or an iterator of them, and never holds two at full size."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .contracts import Size
from .errors import ExportError
from .polygons import bridge, ring_area, trace

if TYPE_CHECKING:
    from .masks import Mask

__all__ = ["HfList", "JsonList", "NpzFile", "coco_result", "geojson_feature", "geojson_head", "yolo_lines"]

Affine: TypeAlias = Sequence[float]


# --- COCO -------------------------------------------------------------------------------------------------------------------------------


def coco_result(mask: Mask, image_id: int | str, category_id: int) -> dict[str, Any]:
    """One entry of a COCO results file; without "bbox", which would make ``COCO.loadRes`` take the list for boxes."""
    counts = mask.runs.to_string()
    return {
        "image_id": image_id if isinstance(image_id, str) else int(image_id),  # JSON knows none of NumPy's numbers
        "category_id": int(category_id),
        "segmentation": {"size": list(mask.size), "counts": counts},
        "score": float(mask.score),
    }


# --- GeoJSON (RFC 7946) -----------------------------------------------------------------------------------------------------------------


def geojson_head(size: Size, transform: Affine | None, crs: str | None) -> dict[str, Any]:
    """All of the collection but its features: where its numbers lie.

    Raises:
        ExportError: a reference system without a transform, or a transform that is not six finite numbers of a plane.
    """
    head: dict[str, Any] = {"type": "FeatureCollection"}
    if transform is None:
        if crs is not None:
            raise ExportError(
                f"crs={crs!r} needs transform= as well: without it the coordinates are pixels, which lie in no reference system."
            )
        return head | {"coordinates": "pixels", "pixel_size": {"width": size[1], "height": size[0]}, "origin": "top left, y downwards"}
    affine(transform)
    if crs is None:
        return head
    return head | {"crs": {"type": "name", "properties": {"name": _urn(crs)}}}  # of GeoJSON 2008; GDAL and QGIS read it


def geojson_feature(
    mask: Mask, transform: Affine | None, properties: dict[str, Any], numbers: dict[float, float] | None = None
) -> dict[str, Any]:
    """One mask as a MultiPolygon, empty for an empty mask; outer rings counter-clockwise in the numbers that are written.

    ``numbers``: those that are in use already. Equal ones become one and the same object, which halves what many features take.
    """
    place = affine(transform) if transform is not None else None
    known: Callable[[float, float], float] = (lambda value, _: value) if numbers is None else numbers.setdefault
    polygons = []
    for polygon in trace(mask.mask):
        rings = []
        for index, ring in enumerate(polygon):
            placed: NDArray[Any] = ring if place is None else place(ring)
            turned = placed if (ring_area(placed) > 0) == (index == 0) else placed[::-1]
            rings.append([[known(x, x), known(y, y)] for x, y in (*turned.tolist(), turned[0].tolist())])
        polygons.append(rings)
    return {"type": "Feature", "properties": properties, "geometry": {"type": "MultiPolygon", "coordinates": polygons}}


def affine(transform: Affine) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """(a, b, c, d, e, f), in the order of rasterio and the affine package: x' = a x + b y + c, y' = d x + e y + f, of pixel corners."""
    try:
        numbers = np.asarray([float(value) for value in transform])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if len(numbers) == 9 and numbers[6:].tolist() == [0, 0, 1]:  # an affine.Affine is a tuple of nine
        numbers = numbers[:6]
    if numbers.shape != (6,) or not np.isfinite(numbers).all():
        raise ExportError(f"transform is six numbers (a, b, c, d, e, f): x' = a x + b y + c, y' = d x + e y + f; not {transform!r}.")
    linear, shift = numbers.reshape(2, 3)[:, :2], numbers.reshape(2, 3)[:, 2]
    if np.linalg.det(linear) == 0:
        raise ExportError(f"transform {tuple(transform)} maps the photo onto a line; GDAL's order (c, a, b, f, d, e) has to be reordered.")
    return lambda ring: ring @ linear.T + shift


def _urn(crs: str) -> str:
    authority, _, code = str(crs).partition(":")
    return f"urn:ogc:def:crs:{authority.upper()}::{code}" if code.isdigit() else str(crs)


# --- YOLO -------------------------------------------------------------------------------------------------------------------------------


def yolo_lines(mask: Mask, index: int) -> list[str]:
    """One line per part: class index, then x y of the corners divided by the photo's width and height.

    The format knows no holes: a hole is joined to the outline by a seam of no width.
    """
    scale = np.array([mask.size[1], mask.size[0]])
    rings = (bridge(polygon) / scale for polygon in trace(mask.mask))
    return [f"{index} " + " ".join(f"{value:.6g}" for value in ring.ravel().tolist()) for ring in rings]


# --- Hugging Face -----------------------------------------------------------------------------------------------------------------------


class HfList(Sequence[dict[str, Any]]):
    """What transformers' image-segmentation pipeline returns: ``{"score", "label", "mask"}``, the mask a PIL image "L" of 0 and 255.

    Behaves like the list, but makes an entry when it is asked for; ``list(...)`` makes them all.
    """

    def __init__(self, masks: Sequence[Mask], labels: Sequence[str]) -> None:
        self._masks, self._labels = masks, labels

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HfList | list):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"HfList({len(self)} entries: {list(self._labels[:5])})"

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        held = self._masks[index].held()
        picture = Image.fromarray(held.mask.view(np.uint8) * np.uint8(255))
        return {"score": held.score, "label": self._labels[index], "mask": picture}


# --- files ------------------------------------------------------------------------------------------------------------------------------


class JsonList:
    """JSON of ``head`` with one more member ``key``, a list that grows item by item; the bare list when ``head`` is None."""

    def __init__(self, file: IO[str], head: dict[str, Any] | None, key: str = "") -> None:
        self._file, self._end, self._separator = file, "\n]\n" if head is None else "\n]}\n", "\n"
        start = "" if head is None else f"{json.dumps(head, ensure_ascii=False)[:-1]}, {json.dumps(key)}: "
        file.write(start + "[")

    def add(self, item: Any) -> None:
        """Write the next item."""
        self._file.write(self._separator + json.dumps(item, ensure_ascii=False))
        self._separator = ",\n"

    def close(self) -> None:
        """Finish the text; the file stays open."""
        self._file.write(self._end)


class NpzFile:
    """A NumPy archive written mask by mask: ``masks`` (N, H, W) bool, then the small arrays that are handed over at the end."""

    def __init__(self, path: Any, count: int, size: Size) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._masks = self._archive.open("masks.npy", "w", force_zip64=True)
        header = {"descr": "|b1", "fortran_order": False, "shape": (count, *size)}
        np.lib.format.write_array_header_1_0(self._masks, header)

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Append the next mask."""
        self._masks.write(np.ascontiguousarray(mask).data)

    def close(self, **arrays: NDArray[Any]) -> None:
        """Add the other arrays and finish the archive."""
        self._masks.close()
        for name, array in arrays.items():
            with self._archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        self._archive.close()
