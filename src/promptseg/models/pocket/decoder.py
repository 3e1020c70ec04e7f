"""From one photo's features and a condition to a mask: FiLM (CLIPSeg) and similarity maps (CAT-Seg's cost volume), refined together.

All maps that do not depend on the prompt are made once per photo in `Neck`; `Decoder` repeats only what a prompt changes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.efficientnet import Depthwise
from ...nn.efficientnet_config import HEAD, stage_widths
from .config import PocketConfig


@dataclass(frozen=True, slots=True)
class PocketImage:
    """Features of B photos; every field's first dimension is the photo. h, w are the network input's sides."""

    grid: Tensor  # (B, D, h/16, w/16) fused features
    keys: Tensor  # (B, heads, D/heads, h/16 * w/16) unit vectors, against which the condition is compared
    grid8: Tensor  # (B, D/2, h/8, w/8) the same, finer
    keys8: Tensor  # (B, heads/2, D/2/heads, h/8 * w/8)
    skip4: Tensor  # (B, D/4, h/4, w/4)
    evidence: Tensor  # (B, classes, h/32 * w/32) what the tower's classifier says of every place
    evidence_shape: tuple[int, int]
    summary: Tensor  # (B, D) of the whole photo
    region: Tensor  # (B, R, h/16, w/16) what an exemplar's region is pooled from
    taught: tuple[PocketImage, ...] = ()  # the same as every taught head sees it; see `network.TaughtHead`

    def float(self) -> PocketImage:
        """The same in float32."""
        names = [field.name for field in fields(self) if field.name not in ("evidence_shape", "taught")]
        changed: dict[str, Any] = {name: getattr(self, name).float() for name in names}
        return replace(self, **changed, taught=tuple(image.float() for image in self.taught))


@dataclass(frozen=True, slots=True)
class Given:
    """What a photo's features have of the tower alone, whichever neck makes the rest; see `PocketImage`."""

    evidence: Tensor
    region: Tensor

    @classmethod
    def of(cls, taps: tuple[Tensor, ...], classifier: nn.Linear) -> Given:
        f16, head = taps[2], taps[-1]
        evidence = F.linear(head.flatten(2).transpose(1, 2), classifier.weight, classifier.bias).transpose(1, 2)
        return cls(evidence, torch.cat([f16, F.interpolate(head, size=f16.shape[-2:], mode="bilinear")], 1))


class Block(nn.Module):
    """Depthwise convolution, then two pointwise ones; residual. (B, D, H, W) -> the same shape."""

    def __init__(self, width: int, kernel: int = 5, expansion: int = 2) -> None:
        super().__init__()
        self.spatial = Depthwise(width, kernel)
        self.norm = nn.BatchNorm2d(width)
        self.up = nn.Conv2d(width, width * expansion, 1)
        self.down = nn.Conv2d(width * expansion, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.relu(self.up(self.norm(self.spatial(x)))))
        return x + y


def region_width(variant: str) -> int:
    """Channels from which an exemplar is pooled: the tower's stride-16 tap and its 1,280 last features."""
    return stage_widths(variant)[4] + HEAD


class Neck(nn.Module):
    """Tower taps -> what every prompt shares."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        D, widths = config.width, stage_widths(config.variant)
        self.heads = config.heads
        self.lateral4 = nn.Conv2d(widths[1], D // 4, 1)
        self.lateral8 = nn.Conv2d(widths[2], D // 2, 1)
        self.lateral16 = nn.Conv2d(widths[4], D, 1)
        self.lateral32 = nn.Conv2d(widths[6] + HEAD, D, 1)
        self.summary = nn.Linear(HEAD, D)
        self.blocks = nn.Sequential(Block(D), Block(D))
        self.keys = nn.Conv2d(D, D, 1)
        self.down8 = nn.Conv2d(D, D // 2, 1)
        self.block8 = Block(D // 2, kernel=3)
        self.keys8 = nn.Conv2d(D // 2, D // 4, 1)

    def forward(self, taps: tuple[Tensor, ...], given: Given) -> PocketImage:
        f4, f8, f16, f32, head = taps
        size = f16.shape[-2:]
        summary = self.summary(head.mean((2, 3)))
        top = F.interpolate(self.lateral32(torch.cat([f32, head], 1)), size=size, mode="bilinear")
        grid = self.blocks(self.lateral16(f16) + top + summary[:, :, None, None])
        grid8 = self.block8(self.lateral8(f8) + F.interpolate(self.down8(grid), size=f8.shape[-2:], mode="bilinear"))
        shape = (head.shape[2], head.shape[3])
        keys, keys8 = _unit(self.keys(grid), self.heads), _unit(self.keys8(grid8), self.heads // 2)
        return PocketImage(grid, keys, grid8, keys8, self.lateral4(f4), given.evidence, shape, summary, given.region)


def _unit(x: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, heads, C/heads, H * W) unit vectors."""
    return F.normalize(x.reshape(len(x), heads, -1, x.shape[2] * x.shape[3]), dim=2)


class Decoder(nn.Module):
    """Conditions on photos -> mask logits at stride 4 and presence logits."""

    def __init__(self, config: PocketConfig) -> None:
        super().__init__()
        D, E = config.width, config.text_width
        self.heads, self.use_film, self.use_similarity = config.heads, config.film, config.similarity
        self.film = nn.Linear(E, 2 * D) if config.film else None
        self.query = nn.Linear(E, D) if config.similarity else None
        self.log_scale = nn.Parameter(torch.full((config.heads, 1), 1.6))  # learned similarity temperature, exp(1.6) = 5
        extra = config.heads + 2 if config.similarity else 0
        self.join = nn.Conv2d(D + extra, D, 1)
        self.blocks = nn.Sequential(*(Block(D) for _ in range(config.blocks)))
        self.to8 = nn.Conv2d(D, D // 2, 1)
        self.film8 = nn.Linear(E, D) if config.film else None
        self.query8 = nn.Linear(E, D // 4) if config.similarity else None
        self.log_scale8 = nn.Parameter(torch.full((config.heads // 2, 1), 1.6))
        self.maps8 = nn.Conv2d(config.heads // 2, D // 2, 1) if config.similarity else None
        self.refine8 = Block(D // 2, kernel=3)
        self.to4 = nn.Conv2d(D // 2, D // 4, 1)
        self.refine4 = Block(D // 4, kernel=3, expansion=1)
        self.mask = nn.Conv2d(D // 4, 1, 3, padding=1)
        self.presence = nn.Sequential(nn.Linear(3 * D + D // 2 + (4 if config.similarity else 0), D), nn.ReLU(), nn.Linear(D, 1))

    def forward(self, image: PocketImage, condition: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
        """condition (B, K, E) unit vectors; class_weights (B, K, classes), rows sum to 1 -> logits (B, K, h/4, w/4), presence (B, K).

        The mask's logit is that of the product of two probabilities: the thing is in the photo, and the pixel is the thing's if it is.
        """
        B, K = condition.shape[:2]
        grid = image.grid[:, None]
        if self.film is not None:
            gamma, beta = self.film(condition)[..., None, None].chunk(2, 2)
            x = (1 + gamma) * grid + beta
        else:
            x = grid.expand(B, K, *grid.shape[2:])
        cues: list[Tensor] = []
        if self.query is not None:
            maps, cues = self._similarity(image, condition, class_weights)
            x = torch.cat([x, maps], 2)
        y = self.blocks(F.relu(self.join(x.flatten(0, 1).contiguous(memory_format=torch.channels_last))))
        summary = image.summary[:, None].expand(B, K, -1)
        pooled = [y.amax((2, 3)).view(B, K, -1), y.mean((2, 3)).view(B, K, -1), summary, *cues]
        y = self.refine8(F.relu(_enlarge(self.to8(y), image.grid8) + self._at8(image, condition)))
        presence = self.presence(torch.cat([*pooled, y.amax((2, 3)).view(B, K, -1)], -1)).squeeze(-1)
        y = self.refine4(F.relu(_enlarge(self.to4(y), image.skip4) + image.skip4.repeat_interleave(K, 0)))
        logits = self.mask(y).view(B, K, *y.shape[2:])
        return product_logit(logits, presence[..., None, None]), presence

    def _at8(self, image: PocketImage, condition: Tensor) -> Tensor:
        """What the prompt makes of the finer features: (B * K, D/2, h/8, w/8). Small things live here."""
        B, K = condition.shape[:2]
        grid, x = image.grid8[:, None], image.grid8
        if self.film8 is not None:
            gamma, beta = self.film8(condition)[..., None, None].chunk(2, 2)
            x = ((1 + gamma) * grid + beta).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        else:
            x = x.repeat_interleave(K, 0)
        if self.query8 is not None:
            assert self.maps8 is not None
            maps = _learned(self.query8(condition), image.keys8, self.log_scale8)
            x = x + self.maps8(maps.reshape(B * K, -1, *grid.shape[-2:]))
        return x

    def _similarity(self, image: PocketImage, condition: Tensor, class_weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Learned maps and the tower's own opinion, (B, K, heads + 2, h/16, w/16), and four numbers per prompt for the presence."""
        assert self.query is not None
        size = image.grid.shape[-2:]
        learned = _learned(self.query(condition), image.keys, self.log_scale)
        # named places: the expected class logit, and the log probability of the prompt's classes against all others
        logit = class_weights @ image.evidence
        log_probability = (class_weights @ image.evidence.softmax(1)).clamp_min(1e-6).log()
        named = torch.stack([logit * 0.2, log_probability * 0.2 + 1], 2)  # brought near -1..1
        coarse = named.view(-1, 2, *image.evidence_shape)
        named_maps = F.interpolate(coarse, size=size, mode="bilinear").view(*named.shape[:3], *size)
        return torch.cat([learned.view(*learned.shape[:3], *size), named_maps], 2), [named.amax(-1), named.mean(-1)]


def _learned(query: Tensor, keys: Tensor, log_scale: Tensor) -> Tensor:
    """query (B, K, C), keys (B, heads, C/heads, P) unit vectors -> scaled cosines (B, K, heads, P)."""
    heads = F.normalize(query.view(*query.shape[:2], keys.shape[1], -1), dim=-1)
    return torch.einsum("bkhd,bhdp->bkhp", heads, keys) * log_scale.exp()


def _enlarge(y: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(y, size=like.shape[-2:], mode="bilinear")


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """logit(sigmoid(a) * sigmoid(b)), stable for any a, b."""
    return -torch.logaddexp(torch.logaddexp(-a, -b), -a - b)
