"""What every result can become: the methods that `Masks`, `Instances`, `SemanticMap` and `PanopticMap` share.

Everything here goes mask by mask. Only `to_numpy` and `to_supervision`, whose receivers want all masks at once, are dense, and they refuse
to take more than half of the free memory unless they are forced.
"""

from __future__ import annotations

import base64
import html
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import formats, memory
from .contracts import Size
from .drawing import Colour, Entry, Painter, palette
from .errors import ExportError, MemoryLimitError
from .masks import Mask, png
from .sources import photo_of

if TYPE_CHECKING:
    from .prompts import ImageInput

__all__ = ["Exports"]

NOTEBOOK_SIDE = 800  # pixels
VERTEX_BYTES = 80  # a list of two numbers that are objects already, and its place in another list
NUMBER_BYTES = 32
OUTLINES = 620_000_000  # bytes that outlines as Python lists may take unasked: with everything else there is, less than 1 GB


class Exports(ABC):
    """A result of one photo. ``size`` (H, W) pixels; ``photo`` as the user gave it, None when unknown; ``model`` its card's name or ''."""

    size: Size
    photo: ImageInput | None
    model: str
    INDEX: ClassVar[str]  # name of the index file in a saved folder

    @abstractmethod
    def _masks(self) -> Sequence[Mask]:
        """The regions that are exported, in order."""

    @abstractmethod
    def _classes(self) -> tuple[tuple[str, ...], Sequence[int]]:
        """The names of the classes, and the class of every region."""

    def _index_head(self, folder: Path) -> dict[str, Any]:
        """What the index says of all regions; a result that is more than its masks writes the rest into the folder here."""
        photo = os.fsdecode(self.photo) if isinstance(self.photo, (str, os.PathLike)) else None
        return {"kind": type(self).__name__, "version": 1, "size": list(self.size), "model": self.model, "photo": photo}

    def _index_entry(self, index: int, mask: Mask) -> dict[str, Any]:
        """What the index says of one region."""
        return self._properties(index, mask)

    # --- pictures ---

    def overlay(self, photo: ImageInput | None = None, *, legend: bool = True) -> Image.Image:
        """The photo with every mask in its colour and a legend of names and scores, a PIL image of the photo's size.

        ``photo`` replaces the one that was segmented; with neither the masks lie on a grey sheet.

        Raises:
            ImageError: the photo cannot be read (any more) or has another size.
        """
        painter = Painter(self.size)
        masks = self._masks()
        for mask in masks:
            held = mask.held()
            painter.add(held.mask, held.area)
        return self._painted(painter, photo, legend)

    def _painted(self, painter: Painter, photo: ImageInput | None = None, legend: bool = True) -> Image.Image:
        given = self.photo if photo is None else photo
        return painter.paint(None if given is None else photo_of(given, self.size), self._colours(), self._entries() if legend else ())

    def _colours(self) -> list[Colour]:
        """One colour per region: its class's."""
        names, classes = self._classes()
        colours = palette(len(names))
        return [colours[index] for index in classes]

    def _entries(self) -> list[Entry]:
        """The legend: what was found first, by score, then what was not."""
        pairs = sorted(zip(self._masks(), self._colours(), strict=True), key=lambda pair: (not pair[0].area, -pair[0].score))
        return [
            Entry(f"{mask.label}  {mask.score:.0%}" if mask.area else f"{mask.label}  not found", colour if mask.area else None)
            for mask, colour in pairs
        ]

    # --- data ---

    def to_png(self) -> Any:
        """One PNG file per mask, a list of bytes: 8-bit grey, 255 in the mask and 0 elsewhere."""
        return [mask.to_png() for mask in self._masks()]

    def to_numpy(self, *, force: bool = False) -> NDArray[Any]:
        """All masks at once, (N, H, W) bool.

        Raises:
            MemoryLimitError: they need more than half of the free memory and ``force`` is not set.
        """
        masks = self._masks()
        needed = len(masks) * self.size[0] * self.size[1]
        instead = "Take the masks one by one, `for mask in masks: mask.mask`, or use to_coco() or save()."
        memory.require(needed, f"A dense array of {len(masks)} masks of {self.size[1]}x{self.size[0]} pixels", instead, force=force)
        result = np.empty((len(masks), *self.size), dtype=np.bool_)
        for index, mask in enumerate(masks):
            result[index] = mask.mask
        return result

    def to_coco(self, *, image_id: int | str = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results, one per mask: image_id, category_id, segmentation (compressed RLE), score; ``COCO.loadRes`` reads them.

        ``category_ids``: one id per class (of `Masks`: per prompt); by default they count from 1.
        """
        ids = self._category_ids(category_ids)
        return [formats.coco_result(mask.held(), image_id, category) for mask, category in zip(self._masks(), ids, strict=True)]

    def _category_ids(self, category_ids: Sequence[int] | None) -> list[int]:
        names, classes = self._classes()
        ids = range(1, len(names) + 1) if category_ids is None else category_ids
        if len(ids) != len(names):
            raise ExportError(f"category_ids holds {len(ids)} ids for {len(names)} classes; give one for each.")
        return [ids[index] for index in classes]

    def to_geojson(self, *, transform: Sequence[float] | None = None, crs: str | None = None, force: bool = False) -> dict[str, Any]:
        """A GeoJSON FeatureCollection, one MultiPolygon per mask, traced exactly along the pixels' edges.

        ``transform``: (a, b, c, d, e, f) from pixel corners to places, x' = a x + b y + c, y' = d x + e y + f, as rasterio gives it.
        ``crs``: their reference system, such as "EPSG:32633"; None is RFC 7946's own, longitude and latitude in degrees. Without a
        transform the collection says that its coordinates are pixels. Many finely structured masks become large as Python lists;
        ``save("masks.geojson")`` writes them one by one.

        Raises:
            ExportError: the transform is impossible, or is missing where a ``crs`` is given.
            MemoryLimitError: the lists need more than 0.62 GB, or more than half of the free memory, and ``force`` is not set.
        """
        head, features = formats.geojson_head(self.size, transform, crs), list[dict[str, Any]]()
        turned = transform is not None and bool(transform[1] or transform[3])  # then no two corners share a number
        numbers: dict[float, float] | None
        numbers, corner = (None, VERTEX_BYTES + 2 * NUMBER_BYTES) if turned else ({}, VERTEX_BYTES)
        free = memory.free_bytes()
        room, taken, largest = OUTLINES if free is None else min(OUTLINES, free // 2), 0, 0
        for index, mask in enumerate(self._masks()):
            held = mask.held()
            features.append(formats.geojson_feature(held, transform, self._properties(index, held), numbers))
            outline = corner * sum(len(ring) for polygon in features[-1]["geometry"]["coordinates"] for ring in polygon)
            taken, largest = taken + outline, max(largest, outline)
            if not force and taken + largest > room:  # what the next one takes is not known: as much as the largest yet
                raise MemoryLimitError(
                    f"The outlines of {index + 1} of {len(self._masks())} masks take {taken / 1e9:.2f} GB as Python lists, which may have "
                    f"{room / 1e9:.2f} GB. Write the file directly: save('masks.geojson'). force=True makes the lists anyway."
                )
        return head | {"features": features}

    def _properties(self, index: int, mask: Mask) -> dict[str, Any]:
        """What is known of one region, for GeoJSON and the index file."""
        box = None if mask.box is None else list(mask.box)
        facts = {"score": float(mask.score), "present": mask.present, "area": mask.area, "box": box}
        return {"label": mask.label, "class": int(self._classes()[1][index]), **facts}

    def to_yolo(self) -> str:
        """The lines of a YOLO segmentation label file: class index (of `Masks`: the prompt's), then the outline, in shares of the photo.

        One line per connected part; a hole is joined to its outline by a seam of no width, as the format knows none.
        """
        classes = self._classes()[1]
        lines = [line for index, mask in zip(classes, self._masks(), strict=True) for line in formats.yolo_lines(mask, index)]
        return "".join(f"{line}\n" for line in lines)

    def to_hf(self) -> formats.HfList:
        """``[{"score", "label", "mask"}, ...]`` as transformers' image-segmentation pipeline gives; each entry is made when asked for."""
        return formats.HfList(self._masks(), [mask.label for mask in self._masks()])

    def to_supervision(self, *, force: bool = False) -> Any:
        """``supervision.Detections`` with dense masks; an empty mask has the box (0, 0, 0, 0).

        Raises:
            ImportError: supervision is not installed.
            MemoryLimitError: the masks need more than half of the free memory and ``force`` is not set.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision() needs the supervision package: pip install 'promptseg[supervision]'") from error
        masks = self._masks()
        return supervision.Detections(
            xyxy=np.array([mask.box or (0, 0, 0, 0) for mask in masks], dtype=np.float32).reshape(-1, 4),
            mask=self._dense(force),
            confidence=np.array([mask.score for mask in masks], dtype=np.float32),
            class_id=np.array(self._classes()[1], dtype=np.int64),
            data={"class_name": np.array([mask.label for mask in masks], dtype=np.str_)},
        )

    def _dense(self, force: bool) -> NDArray[np.bool_]:
        return Exports.to_numpy(self, force=force)

    # --- files and notebooks ---

    def save(
        self,
        path: str | os.PathLike[str],
        formats: Sequence[str] | str | None = None,
        *,
        transform: Sequence[float] | None = None,
        crs: str | None = None,
        image_id: int | str = 1,
    ) -> list[Path]:
        """Write a folder, or one file whose suffix says what: .png or .jpg the overlay, .json COCO, .geojson, .txt YOLO, .npz.

        In a folder the ``formats``, any of overlay, png, coco, geojson, yolo, npz (by default the first two), become ``overlay.png``,
        ``masks/000-NAME.png``, ``coco.json``, ``masks.geojson``, ``yolo.txt`` and ``masks.npz``; an index, from which `load` gives the
        same pixels, scores and soft edges again, is written last: where it is, all is. A model's ``probabilities`` are not kept. Every
        mask is made once for all formats. The other arguments are those of `to_geojson` and `to_coco`. Returns the paths that were written.

        Raises:
            ExportError: an unknown format or suffix, or a place that cannot be written.
        """
        from .writers import Job, write

        return write(Job(self, transform, crs, image_id), Path(path), formats)

    def _repr_png_(self) -> bytes:
        picture = self.overlay()
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        return png(picture)

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        rows = "".join(_table_row(html.escape(mask.label), f"{mask.score:.2f}", f"{mask.area:,}", mask.present) for mask in self._masks())
        head = "<tr><th>prompt</th><th>score</th><th>pixels</th><th>present</th></tr>"
        return f'<img src="data:image/png;base64,{picture}" style="max-width:100%"/><table>{head}{rows}</table>'


def _table_row(*cells: object) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
