"""Fréchet distance between two sets of patches, as Heusel et al. 2017 (arXiv 1706.08500) have it between pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from latentzip.training.efficientnet import EfficientNetLite0

PATCH, CHANNELS = 64, 112  # pixels a side; features of EfficientNet-Lite0 at 1/16, which a patch's mean is taken of
# A covariance of 112 features needs many more patches than that; below, the distance says more of the set's size.
FEWEST_PATCHES = 1000

Patches = NDArray[np.float32]  # (N, CHANNELS)


@torch.no_grad()
def patch_features(network: EfficientNetLite0, parts: Sequence[torch.Tensor]) -> Patches:
    """Parts of a picture, (1, 3, H, W) float in [-1, 1] -> the features of all patches that are whole."""
    found = [torch.zeros(0, CHANNELS)]
    for x in parts:
        height, width = (side // PATCH * PATCH for side in x.shape[2:])
        if height and width:
            features = network.features(x[:, :, :height, :width])[-1]
            found.append(F.avg_pool2d(features, PATCH // 16)[0].flatten(1).T)
    return torch.cat(found).numpy()


def frechet_distance(a: Patches, b: Patches) -> float:
    """|mean difference|² + trace(A + B - 2 (A B)^½) of the two sets' covariances A and B. At least two rows each."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = a.mean(0) - b.mean(0)
    left, right = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # the eigenvalues of a product of two covariances are real and not negative, but for rounding
    roots = np.sqrt(np.linalg.eigvals(left @ right).real.clip(min=0))
    return float(difference @ difference + np.trace(left) + np.trace(right) - 2 * roots.sum())
