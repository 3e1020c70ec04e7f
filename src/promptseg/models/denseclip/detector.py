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

from ...contracts import Detections, Options, PromptFeatures, Size, View
from ...errors import ConfigError, PromptError
from ...nn.clip_resnet import ClipResNet, ImageMaps
from ...nn.conversion import built
from ...nn.fpn import FeaturePyramid
from ...prompts import Prompt, Text
from .anchored import Truth
from .asking import DetectionOptions
from .config import DenseClipConfig, MaskHead, ResNetBackbone, RetinaHead
from .context import ContextDecoder, score_map, visual_context
from .detection_losses import box_score_loss
from .detector_keys import DETECTORS
from .maskrcnn import MaskRcnn
from .picking import MOST, Found
from .retinanet import RetinaNet
from .text import ContextTextTower, class_tokens

STRIDE = 32  # of the coarsest map of the image encoder: photos are padded to its multiples


@dataclass(frozen=True, slots=True)
class DetectorImage:
    """``encoded``: the image encoder's maps and embeddings. ``sizes`` (B, 2) int64: height and width of each image without padding."""

    encoded: ImageMaps
    sizes: Tensor


@dataclass(frozen=True, slots=True)
class Guided:
    """``levels`` of the pyramid, and ``scores`` (B, K, h, w), the score map divided by the temperature; None without language."""

    levels: tuple[Tensor, ...]
    scores: Tensor | None


class Detector(nn.Module):
    """See `contracts.Network` for the protocol."""

    def __init__(self, config: DenseClipConfig) -> None:
        super().__init__()
        if not isinstance(config.backbone, ResNetBackbone) or not isinstance(config.head, RetinaHead | MaskHead):
            raise ConfigError("Detectors have CLIP's residual network as their image encoder, and the head of RetinaNet or Mask R-CNN.")
        self.config = config
        self.image = ClipResNet(config.backbone.network)
        language = config.language
        if language is not None:
            self.text = ContextTextTower(language.text)
            self.contexts = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, language.contexts, language.text.width)))
            self.gamma = nn.Parameter(torch.full((language.text.embed,), 1e-4))
            self.context_decoder = ContextDecoder(language.text.embed, language.decoder)
        neck = config.neck
        self.neck = FeaturePyramid(config.neck_inputs, neck.channels, start=neck.start, outputs=neck.outputs, extra=neck.extra)
        make = RetinaNet if isinstance(config.head, RetinaHead) else MaskRcnn
        self.head = make(neck.channels, len(config.classes), config.head)  # type: ignore[arg-type]  # each with its own

    @classmethod
    def from_official(cls, config: DenseClipConfig, *state_dicts: Mapping[str, Tensor]) -> Detector:
        """The network with published weights, in evaluation mode.

        Raises:
            WeightsError: a tensor is missing, unknown or of another shape; all are listed by name.
        """
        return built(lambda: cls(config), {"official": DETECTORS}, *state_dicts)

    # --- the three questions ------------------------------------------------------------------------------------------------------------

    def encode_image(self, pixel_values: Tensor) -> DetectorImage:
        """pixel_values (B, 3, H, W) normalised; a fourth channel is 1 where the image is and 0 where it was padded."""
        count, channels, height, width = pixel_values.shape
        sizes = torch.tensor([[height, width]]).repeat(count, 1)
        if channels == 4:
            shown = pixel_values[:, 3]
            sizes = torch.stack([shown.amax(2).sum(1), shown.amax(1).sum(1)], 1).round().long()
        return DetectorImage(self.image(pixel_values[:, :3]), sizes.to(pixel_values.device))

    def encode_prompts(self, prompts: Sequence[Prompt]) -> PromptFeatures:
        """The class names, all of them in the order of training -> conditions (K, C); of no width without language.

        Raises:
            PromptError: another type of prompt, an empty name, or one that is too long.
        """
        names = []
        for prompt in prompts:
            if not isinstance(prompt, Text):
                raise PromptError(f"DenseCLIP takes class names, not {type(prompt).__name__}.")
            names.append(prompt.text)
        if self.config.language is None:
            return PromptFeatures(tuple(prompts), torch.zeros(len(names), 0, device=self.device))
        ids = class_tokens(names, self.config.language.tokens).to(self.device)
        return PromptFeatures(tuple(prompts), self.text.embed(ids, self.contexts)[0])

    def decode(self, image: DetectorImage, prompts: PromptFeatures) -> Detections:
        """At most 100 boxes per image, in pixels of the network's input."""
        guided = self.guide(image.encoded, prompts.condition)
        sizes = [(int(height), int(width)) for height, width in image.sizes.tolist()]
        return padded(self.head.detect(guided.levels, sizes))

    def forward(self, pixel_values: Tensor) -> Detections:
        """All three: normalised pixels (B, 3 or 4, H, W) -> boxes of the classes that the network was trained with."""
        return self.decode(self.encode_image(pixel_values), self.encode_prompts([Text(name) for name in self.classes]))

    # --- photos -------------------------------------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the head knows, in its order."""
        return self.config.classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def views(self, size: Size, options: Options) -> tuple[View, ...]:
        """The whole photo, fitted into 1333 x 800 pixels or what `DetectionOptions` says, then padded at the right and bottom.

        Raises:
            ConfigError: the options ask for tiles or another fit.
        """
        given = options if isinstance(options, DetectionOptions) else DetectionOptions(**_shared(options))
        content = fitted(size, given.long, given.short)
        shape = (-(-content[0] // STRIDE) * STRIDE, -(-content[1] // STRIDE) * STRIDE)
        return (View((0, 0, size[1], size[0]), content, shape),)

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

    def guide(self, encoded: ImageMaps, texts: Tensor) -> Guided:
        """The pyramid, one of whose inputs has the score map of ``texts`` (K, C) beside it."""
        language = self.config.language
        if language is None:
            return Guided(self.neck(encoded.maps), None)
        scores = score_map(self.local(encoded)[1], self.final_texts(encoded, texts)) / language.tau
        maps = list(encoded.maps)
        beside = scores if language.divided else scores * language.tau
        maps[language.level] = torch.cat([maps[language.level], beside.to(maps[language.level])], 1)
        return Guided(self.neck(maps), scores)

    def final_texts(self, encoded: ImageMaps, texts: Tensor) -> Tensor:
        """``texts`` (K, C) as each image corrects them: (B, K, C)."""
        embedding, local = self.local(encoded)
        own = texts.to(local)[None].expand(len(local), -1, -1)
        result: Tensor = own + self.gamma * self.context_decoder(own, visual_context(embedding, local))
        return result

    @staticmethod
    def local(encoded: ImageMaps) -> tuple[Tensor, Tensor]:
        """The embeddings of the images and of their cells, which every network with language has."""
        assert encoded.embedding is not None
        assert encoded.local is not None
        return encoded.embedding, encoded.local

    def losses(self, pixels: Tensor, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Every loss of a training batch, pixels (B, 3, H, W), by its published name; those of several levels are added up."""
        encoded = self.image(pixels)
        guided = self.guide(encoded, self.encode_prompts([Text(name) for name in self.classes]).condition)
        found = {name: sum(loss) if isinstance(loss, list) else loss for name, loss in self.head.losses(guided.levels, truths).items()}
        result = {name: torch.as_tensor(loss) for name, loss in found.items()}
        if guided.scores is not None:
            key = "loss_seg" if isinstance(self.config.head, RetinaHead) else "loss_aux_seg"
            boxes, labels = [truth.boxes for truth in truths], [truth.labels for truth in truths]
            result[key] = box_score_loss(enlarged(guided.scores, encoded.maps[0]), boxes, labels)
        return result


def enlarged(scores: Tensor, finest: Tensor) -> Tensor:
    """A score map (B, K, h, w) at the resolution of the image encoder's ``finest`` map."""
    return F.interpolate(scores.float(), finest.shape[-2:], mode="bilinear", align_corners=False)


def fitted(size: Size, long: int, short: int) -> Size:
    """A photo's ``size`` (H, W), enlarged or shrunk until a side reaches its limit, in pixels [mmcv: rescale_size]."""
    scale = min(long / max(size), short / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def padded(found: Sequence[Found]) -> Detections:
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


def _shared(options: Options) -> dict[str, object]:
    """A user's general options as those of detectors, which check them."""
    return {name: getattr(options, name) for name in ("fit", "size", "tile", "overlap", "templates", "synonyms")}
