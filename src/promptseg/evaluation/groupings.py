"""The comparison of the GroupViT paper: patches of a vision transformer grouped by no network, and each group named (section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..contracts import Size, View, probability
from ..data.samples import LabelSample, PhotoSet
from ..data.vocabularies import templates
from ..data.whole_maps import voc21
from ..errors import ConfigError, UnsupportedTask
from ..images import to_pixels
from ..metrics import AbsentRule
from ..models.groupvit.windows import LONGEST
from ..nn.clip import Clip, ImageTower
from ..nn.slides import resized
from ..prompts import Text
from .label_maps import LabelMaps, MapsPart, accuracies
from .protocol import Figures, Metrics, Part, existing
from .table import Row

if TYPE_CHECKING:
    from ..segmenter import Segmenter

__all__ = ["Grouping", "VocGroupings", "grouped"]

Grouping: TypeAlias = Literal["pixels", "k-means", "mean-shift", "spectral"]
ALL: tuple[Grouping, ...] = ("pixels", "k-means", "mean-shift", "spectral")
SHORT = 448  # pixels of the photo's shorter side, as GroupViT is shown it
SEED = 0
PUBLISHED = {"pixels": 0.201, "k-means": 0.250, "mean-shift": 0.207, "spectral": 0.197}  # of a ViT-S trained on captions
GROUPVIT = 0.523


def grouped(features: NDArray[np.float32], how: Grouping, clusters: int) -> NDArray[np.int64]:
    """Which group each row of ``features`` (S, E), of length 1, belongs to: (S,), 0 and up.

    "pixels": each to its own. "k-means", "spectral": ``clusters`` groups, or one per row where there are fewer; the latter by cosines, of
    which those below 0 count as 0. "mean-shift" finds how many itself, with scikit-learn's estimate of the bandwidth.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    if how == "pixels" or len(features) <= clusters:
        return np.arange(len(features), dtype=np.int64)
    try:
        from sklearn import cluster
    except ImportError:
        raise ImportError("Clustering needs scikit-learn: pip install 'promptseg[eval]'.") from None
    if how == "k-means":
        found = cluster.KMeans(clusters, n_init=10, random_state=SEED).fit_predict(features)
    elif how == "spectral":
        affinity = (features @ features.T).clip(min=0)
        found = cluster.SpectralClustering(clusters, affinity="precomputed", random_state=SEED).fit_predict(affinity)
    else:
        width = float(cluster.estimate_bandwidth(features, random_state=SEED))
        if width == 0:  # most rows are equal
            found = np.unique(features, axis=0, return_inverse=True)[1].reshape(-1)
        else:
            found = cluster.MeanShift(bandwidth=width, bin_seeding=True).fit_predict(features)
    return np.asarray(found, dtype=np.int64)


@dataclass(frozen=True)
class VocGroupings(LabelMaps):
    """Pascal VOC 2012 by CLIP's image tower: its last block's patches, projected as the class token is, form groups; the mean of each is
    compared with the class names. A group whose best class is less probable than ``background`` is background.

    ``groupings``: lines of the table. ``clusters``: groups where the number is given beforehand. It and the threshold are our
    choices, for there is no published code: 8 is what GroupViT forms, and 0.95 its threshold for this data.
    """

    NAME: ClassVar[str] = "voc-groupings"
    TITLE: ClassVar[str] = "Pascal VOC, label maps by CLIP's patches: one by one, k-means, mean-shift, spectral (GroupViT's comparison)"
    DATA: ClassVar[str] = "VOCdevkit/VOC2012: JPEGImages, SegmentationClass, ImageSets/Segmentation; a model that holds CLIP's transformer"
    ABSENT: ClassVar[AbsentRule] = "skip"

    groupings: tuple[Grouping, ...] = ALL
    clusters: int = 8
    background: float = 0.95

    def __post_init__(self) -> None:
        probability("background", self.background)
        if self.clusters < 1 or not self.groupings or len(set(self.groupings)) < len(self.groupings) or not set(self.groupings) <= set(ALL):
            raise ConfigError(f"clusters is at least 1, and groupings are some of {', '.join(ALL)}, each once.")

    def photos(self) -> PhotoSet[LabelSample]:
        return voc21(existing(self.root), self.split)

    def parts(self) -> tuple[Part, ...]:
        return tuple(MapsPart(replace(self, groupings=(one,)), one) for one in self.groupings)

    def wordings(self) -> tuple[str, ...]:
        return super().wordings() or templates("photo")

    def answer(self, segmenter: Segmenter, image: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.integer[Any]]:
        """As `LabelMaps.answer`, by the first of the groupings."""
        model = segmenter.model
        if not isinstance(model, Clip) or not isinstance(model.image, ImageTower):
            raise UnsupportedTask(segmenter.card.name, "patch-by-patch", ["clipseg-rd64", "catseg-base"])
        prompts = segmenter.embed_prompts([Text(name, self.wordings()) for name in classes[1:]]).features
        with torch.inference_mode():
            features = patches(segmenter, image)
            grid = (features.shape[0], features.shape[1])
            rows = features.flatten(0, 1)
            owner = torch.from_numpy(grouped(F.normalize(rows, dim=-1).numpy(), self.groupings[0], self.clusters))
            means = rows.new_zeros(int(owner.max()) + 1, rows.shape[1]).index_add_(0, owner, rows)  # their lengths do not matter
            cosines = F.normalize(means, dim=-1) @ F.normalize(prompts.condition.float().cpu(), dim=-1).T
            scores = (cosines * float(model.logit_scale.exp())).softmax(-1)[owner].T.view(1, -1, *grid)
            return labelled(scores, self.background, (image.shape[0], image.shape[1]))

    def rows(self, counted: Mapping[str, Metrics]) -> tuple[Row, ...]:
        figures = ((name, counted[name]["classes"]) for name in self.groupings)
        return tuple(
            row
            for name, metric in figures
            for row in (Row(f"{name}: mIoU", metric.compute().mean), Row(f"{name}: pixel accuracy", accuracies(metric)[0]))
        )

    def per_class(self, counted: Mapping[str, Metrics]) -> Mapping[str, Figures]:
        return {f"{name}: IoU": counted[name]["classes"].compute().per_class for name in self.groupings}

    def published(self) -> Mapping[str, Figures]:
        """GroupViT itself stands beside all of them."""
        ours = {f"{name}: mIoU": PUBLISHED[name] for name in self.groupings}
        return {"ViT-S (paper)": ours, "groupvit-gcc-yfcc": dict.fromkeys(ours, GROUPVIT)}

    def constants(self, segmenter: Segmenter) -> dict[str, Any]:
        return {**super().constants(segmenter), "shorter side": SHORT, "seed": SEED}


def patches(segmenter: Segmenter, image: NDArray[np.uint8]) -> Tensor:
    """A photo uint8 (H, W, 3) -> what the tower says of its patches in the space of the texts, (h, w, E) float32 on the CPU."""
    tower = cast(ImageTower, segmenter.model.image)
    size: Size = (image.shape[0], image.shape[1])
    content = resized(size, SHORT, LONGEST)
    pixels = to_pixels(image, View((0, 0, size[1], size[0]), content, content), segmenter.card.preprocess)
    last = len(tower.blocks) - 1
    seen = tower(pixels[None].to(tower.projection.device, tower.projection.dtype), taps=(last,), embed=False)
    embedded: Tensor = tower.norm_post(seen.activations[last][0, 1:]) @ tower.projection
    return embedded.float().cpu().view(*seen.grid, -1)


def labelled(scores: Tensor, background: float, size: Size) -> NDArray[np.int64]:
    """Probabilities (1, N, h, w), enlarged bilinearly to ``size`` -> the best class of every pixel, 1 and up; 0 below ``background``."""
    best, labels = F.interpolate(scores, size, mode="bilinear", align_corners=False)[0].max(0)
    answer: NDArray[np.int64] = torch.where(best < background, 0, labels + 1).numpy()
    return answer
