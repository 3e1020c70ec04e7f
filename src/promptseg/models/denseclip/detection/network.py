"""DenseCLIP's detectors, RetinaNet and Mask R-CNN, with class names as guides or, as the tables' baselines, without.

pixels (B, 3 or 4, H, W) --image encoder--> DetectorImage                     encode_image
class names --learned contexts, text tower--> conditions (K, C)              encode_prompts
DetectorImage, conditions --context decoder, score map, pyramid, head--> Detections       decode
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....contracts import Detections, Options, PromptFeatures, Size, View
from ....errors import ConfigError, PromptError
from ....nn.clip_resnet import ImageMaps
from ....nn.conversion import built
from ....nn.slides import resized
from ....prompts import Prompt, Text
from ..config import DenseClipConfig, MaskHead, PlainVitBackbone, RetinaHead, VitBackbone, own
from ..core import DenseClip
from ..keys import LAYOUTS
from .anchored import Truth
from .asking import DetectionOptions
from .losses import box_score_loss
from .maskrcnn import MaskRcnn
from .picking import MOST, Found
from .retinanet import RetinaNet

STRIDE = 32  # of the coarsest map of the image encoder: photos are padded to its multiples


@dataclass(frozen=True, slots=True)
class DetectorImage:
    """``encoded``: the image encoder's maps and embeddings. ``sizes`` (B, 2) int64: height and width of each image without padding."""

    encoded: ImageMaps
    sizes: Tensor


class Detector(DenseClip):
    """See `contracts.Network` for the protocol."""

    def __init__(self, config: DenseClipConfig) -> None:
        super().__init__(config)
        if isinstance(config.backbone, VitBackbone | PlainVitBackbone) or not isinstance(config.head, RetinaHead | MaskHead):
            raise ConfigError("Detectors have any image encoder but a transformer of one scale, and the head of RetinaNet or Mask R-CNN.")
        head, inputs, classes = config.head, config.neck.channels, len(config.classes)
        self.head = RetinaNet(inputs, classes, head) if isinstance(head, RetinaHead) else MaskRcnn(inputs, classes, head)

    @classmethod
    def from_official(cls, config: DenseClipConfig, *state_dicts: Mapping[str, Tensor]) -> Detector:
        """The network with published weights, in evaluation mode.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), LAYOUTS, *state_dicts)

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor) -> DetectorImage:  # type: ignore[override]  # detectors know where photos end
        """pixel_values (B, 3, H, W) normalised; a fourth channel is 1 where the image is and 0 where it was padded."""
        count, channels, height, width = pixel_values.shape
        sizes = torch.tensor([[height, width]], device=pixel_values.device).repeat(count, 1)
        if channels == 4:
            shown = pixel_values[:, 3].float()
            sizes = torch.stack([shown.amax(2).sum(1), shown.amax(1).sum(1)], 1).long()
        return DetectorImage(super().encode_image(pixel_values[:, :3]), sizes)

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """Bare names -> embeddings (N, C), the image not yet seen; of a baseline, which reads no words, zeros (N, 1).

        With pre-model prompting no name can be read before the image is seen; its condition is nothing, (N, 0).

        Raises:
            PromptError: another type of prompt, or a name that is too long.
        """
        names = [prompt.text for prompt in prompts if isinstance(prompt, Text)]
        if len(names) < len(prompts):
            raise PromptError("DenseCLIP's detectors take the names of their classes and no other prompts.")
        if self.text is None or self.queries is not None:
            nothing = torch.zeros(len(names), int(self.text is None), device=next(self.parameters()).device)
            return PromptFeatures(tuple(prompts), nothing)
        return PromptFeatures(tuple(prompts), self.class_embeddings(names))

    def decode(self, image: DetectorImage, prompts: PromptFeatures) -> Detections:
        """At most 100 boxes per image, in pixels of the network's input.

        Raises:
            PromptError: the prompts are not the classes that the head knows, all of them and in its order.
            NumericalError: the network computed NaN.
        """
        if tuple(getattr(prompt, "text", None) for prompt in prompts.prompts) != self.classes:
            raise PromptError(f"This detector knows its {len(self.classes)} classes and no others; ask it for all of them, in their order.")
        sizes = [(int(height), int(width)) for height, width in image.sizes.tolist()]
        scores = None
        if self.text is not None:
            base = prompts.condition.to(image.encoded.maps[0]) if self.queries is None else self.class_embeddings()
            scores = self.guide(image.encoded, base).scores
        return as_batch(self.head.detect(self.pyramid(image.encoded, scores), sizes))

    def forward(self, pixel_values: Tensor) -> Detections:
        """All three: normalised pixels (B, 3 or 4, H, W) -> boxes of the classes that the network was trained with."""
        return self.decode(self.encode_image(pixel_values), self.encode_prompts([Text(name) for name in self.classes]))

    # --- photos -------------------------------------------------------------------------------------------------------------------------

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """The whole photo, fitted into 1333 x 800 pixels or what `DetectionOptions` says, then padded at the right and bottom.

        Raises:
            ConfigError: the options ask for tiles, another fit or other wordings, or are those of segmenters.
        """
        given = own(options, DetectionOptions)
        content = resized(size, given.short, given.long)
        shape = (-(-content[0] // STRIDE) * STRIDE, -(-content[1] // STRIDE) * STRIDE)
        return (View((0, 0, size[1], size[0]), content, shape),)

    def whole_view(self, size: Size, options: Options) -> View:
        """The photo of ``size`` (H, W) in one look, as always."""
        return self.views(size, options)[0]

    def prepare(self, pixels: Tensor, view: View) -> Tensor:
        """(3, h, w) -> (4, h, w): what is photo and what is padding."""
        shown = pixels.new_zeros(1, *view.shape)
        shown[:, : view.content[0], : view.content[1]] = 1
        return torch.cat([pixels, shown])

    def merge(self, predictions: Sequence[Detections], views: Sequence[View], size: Size) -> Detections:
        """Boxes in pixels of the photo of ``size`` (H, W)."""
        (found,), (view,) = predictions, views
        scale = found.boxes.new_tensor([size[1] / view.content[1], size[0] / view.content[0]]).repeat(2)
        return Detections(found.boxes * scale, found.scores, found.labels, found.masks)

    # --- parts --------------------------------------------------------------------------------------------------------------------------

    @property
    def prompt_weights(self) -> nn.Module | None:
        """What decides the conditions of texts; while it stays the same they may be kept."""
        return self.text if self.queries is None else None

    def losses(self, pixels: Tensor, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Every loss of a training batch, pixels (B, 3, H, W), by its published name; those of several levels are added up."""
        image = DenseClip.encode_image(self, pixels)
        scores = None if self.text is None else self.guide(image, self.class_embeddings()).scores
        found = self.head.losses(self.pyramid(image, scores), truths)
        result = {name: torch.stack(loss).sum() if isinstance(loss, list) else loss for name, loss in found.items()}
        if scores is not None and self.config.language is not None:
            key = "loss_seg" if isinstance(self.config.head, RetinaHead) else "loss_aux_seg"
            boxes, labels = [truth.boxes for truth in truths], [truth.labels for truth in truths]
            result[key] = box_score_loss(enlarged(scores / self.config.language.tau, image.maps[0]), boxes, labels)
        return result


def enlarged(scores: Tensor, finest: Tensor) -> Tensor:
    """A score map (B, K, h, w) at the resolution of the image encoder's ``finest`` map."""
    return F.interpolate(scores.float(), finest.shape[-2:], mode="bilinear", align_corners=False)


def as_batch(found: Sequence[Found]) -> Detections:
    """The images' boxes as one batch; where fewer were found, scores are 0."""
    count = len(found)
    boxes, scores = found[0].boxes.new_zeros(count, MOST, 4), found[0].boxes.new_zeros(count, MOST)
    labels = torch.zeros(count, MOST, dtype=torch.int64, device=boxes.device)
    side = 0 if found[0].masks is None else found[0].masks.shape[-1]
    masks = boxes.new_zeros(count, MOST, side, side)
    for image, one in enumerate(found):
        own = slice(len(one.boxes))
        boxes[image, own], scores[image, own], labels[image, own] = one.boxes, one.scores, one.labels
        if one.masks is not None:
            masks[image, own] = one.masks
    return Detections(boxes, scores, labels, masks if side else None)
