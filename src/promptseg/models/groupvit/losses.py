"""What GroupViT is trained to do: images and their captions, and prompts of their nouns, find each other (paper, section 3.2).

Features are gathered over all processes, in the order of ranks, and gradients return to where a feature came from. With gradients averaged
over processes, as DDP does, that is the gradient of the loss of the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nn.processes import gathered, several

MAX_SCALE = 100.0  # of cosines (published code); the parameter itself is never cut


def scale_of(logit_scale: Tensor) -> Tensor:
    """What cosines are multiplied with."""
    return logit_scale.float().exp().clamp(max=MAX_SCALE)


def of_all(features: Tensor) -> tuple[Tensor, int]:
    """Rows (B, ...) of all processes (W * B, ...), differentiable, and where one's own begin."""
    if not several():
        return features, 0
    return gathered(features), torch.distributed.get_rank() * len(features)


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """Every image finds its caption among all, and every caption its image (equations 8 and 9): half the sum of two cross entropies.

    Args:
        image, text: (B, E), of any length.
        logit_scale: logarithm of the scale.
    """
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    (images, first), (texts, _) = of_all(image), of_all(text)
    target, scale = torch.arange(len(image), device=image.device) + first, scale_of(logit_scale)
    return (F.cross_entropy(scale * image @ texts.T, target) + F.cross_entropy(scale * text @ images.T, target)) / 2


def multi_label_loss(image: Tensor, prompts: Tensor, logit_scale: Tensor) -> Tensor:
    """Every image finds all its prompts among everybody's, and every prompt its image (equations 10 and 11).

    Args:
        image: (B, E), of any length.
        prompts: (B, K, E), of any length; a word that two images share is a wrong answer for both, as published.
        logit_scale: logarithm of the scale.
    """
    count = prompts.shape[1]
    image, own = F.normalize(image.float(), dim=-1), F.normalize(prompts.float(), dim=-1).flatten(0, 1)
    (images, first), (texts, _) = of_all(image), of_all(own)
    mine, scale = torch.arange(len(image), device=image.device) + first, scale_of(logit_scale)
    chosen = (scale * image @ texts.T).log_softmax(-1).view(len(image), -1, count)  # (B, W * B, K)
    to_prompts = -chosen[torch.arange(len(image), device=image.device), mine].mean(-1).mean()
    to_images = F.cross_entropy(scale * own @ images.T, mine.repeat_interleave(count))
    return (to_prompts + to_images) / 2
