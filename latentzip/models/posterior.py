"""The encoder's diagonal Gaussian, where the prior is N(0, 1)."""

import torch
from torch import Tensor

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # beyond it exp() leaves float32; the bounds are those of latent-diffusion


class GaussianPosterior:
    """q(z|x) = N(mean, exp(log_variance)) from moments (B, 2 C, h, w) float: the means, then the log variances."""

    def __init__(self, moments: Tensor) -> None:
        self.mode, log_variance = moments.chunk(2, dim=1)
        self.log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)

    def sample(self) -> Tensor:
        """(B, C, h, w), with gradients to the moments."""
        return self.mode + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mode)

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) in nats, summed over each latent: (B,). Kingma and Welling 2014, arXiv 1312.6114, app. B."""
        terms = self.mode.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.sum((1, 2, 3))
