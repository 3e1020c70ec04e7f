"""Labels resized as OpenCV resizes them, so that they stay on the photo's pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...contracts import Size


def nearest(labels: NDArray[np.integer], size: Size) -> NDArray[np.integer]:
    """Labels (H, W) -> ``size``: each output pixel takes the label at floor(index * scale)."""
    rows, columns = (
        np.minimum((np.arange(target) * (source / target)).astype(np.int64), source - 1)
        for source, target in zip(labels.shape, size, strict=True)
    )
    return labels[np.ix_(rows, columns)]
