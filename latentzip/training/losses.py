"""The objective of the first stage (Rombach et al. 2022, arXiv 2112.10752, equation 25):

    L = min over E, D, max over psi of  L_rec(x, D(E(x))) - L_adv(D(E(x))) + log D_psi(x) + L_reg(x; E, D)

L_rec is the distance of pixels, of structure and of features, L_adv what the patch discriminator says, and L_reg the
rate in bits per pixel (KL of the posterior to the learned prior), the KL to N(0, 1) with a tiny weight, or the
commitment to the codes. Distances carry the Lagrangian weight lambda of each picture's rate.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentzip.models.autoencoder import TrainingOutput
from latentzip.similarity import PERCEPTUAL_POWER, ssim
from latentzip.training.discriminator import adaptive_weight, adversarial_loss, discriminator_loss
from latentzip.training.fidelity import squared_error
from latentzip.training.perceptual import FeatureDistance, PerceptualDistance
from latentzip.training.projected import augmented
from latentzip.training.settings import TrainSettings
from latentzip.training.wasserstein import LAYERS, log_sigma_of, wasserstein_distortion

# A picture counts with this power of lambda_mid / lambda: bits and weighted distances grow with lambda, and without it
# the highest rates would make most of the gradient.
BALANCE_POWER = 0.4
# At an error of this many levels the absolute error pulls as hard as the squared one.
L1_LEVELS = 6.0


@dataclass(frozen=True)
class Losses:
    """The terms, unweighted, scalars without gradients; `total` is what the autoencoder minimises."""

    total: Tensor
    reconstruction: Tensor  # as it is minimised: mean squared or absolute error in 8-bit levels
    squared_error: Tensor  # in 8-bit levels squared
    perceptual: Tensor
    wasserstein: Tensor
    ssim: Tensor
    adversarial: Tensor  # -L_adv
    adversarial_weight: Tensor
    bpp: Tensor
    kl: Tensor  # to N(0, 1), nats per value of the picture
    commitment: Tensor


class Objective:
    def __init__(
        self,
        settings: TrainSettings,
        lambdas: tuple[float, float],
        perceptual: PerceptualDistance | None,
        discriminator: nn.Module | None = None,
        processes: int = 1,
    ) -> None:
        """`lambdas`: the model's, at rates 0 and 1. `processes` share the settings' batch, and so its costly parts."""
        self.settings = settings
        self.lambdas = lambdas
        self.perceptual = perceptual
        # of parts, all of one size; whole pictures, in validation, are of many
        self._seen_of_parts = torch.compile(self._seen) if settings.compile else self._seen
        self.discriminator = discriminator
        self.crops = max(1, settings.perceptual_crops // processes)

    def backward(
        self,
        x: Tensor,
        out: TrainingOutput,
        rate: Tensor,
        last_layer: Tensor,
        progress: float,
        step: int,
        type_mask: Tensor | None = None,
    ) -> Losses:
        """Add the gradients of L to the parameters that `out` came from.

        x: (B, 3, H, W) float in [-1, 1]; rate: (B,) in [0, 1]; last_layer: the decoder's, for the adaptive weight;
        progress of the run in 0..1; type_mask: (B, 1, H, W), 1 where there is type.

        Each loss is followed back to the reconstruction once; from there the adaptive weight costs a layer, and the
        networks are passed once for all of them.
        """
        s = self.settings
        x_hat = out.x_hat.detach().requires_grad_()
        paints = out.x_hat.requires_grad  # not where the prior alone is trained
        parts = self.parts(len(x), x.shape[-1], step)
        weight = self._lagrangian_weight(rate)

        reconstruction_loss, terms = self._reconstruction_loss(x, x_hat, weight, parts, progress, step, type_mask)
        (gradient,) = torch.autograd.grad(reconstruction_loss, x_hat)
        adversarial = adversarial_weight = x.new_zeros(())
        if paints and s.sees_discriminator(progress):
            assert self.discriminator is not None
            scales = self._judged(self.discriminator, parts.of(x), parts.of(x_hat), step)
            adversarial = _mean([adversarial_loss(real, fake, s.adversarial) for real, fake in scales])
            (adversarial_gradient,) = torch.autograd.grad(adversarial, x_hat)
            if type_mask is not None:
                adversarial_gradient = adversarial_gradient * (1 - type_mask)
            pulls = [gradient, adversarial_gradient]
            if s.discriminator == "patch":
                pulls = [torch.autograd.grad(out.x_hat, last_layer, g, retain_graph=True)[0] for g in pulls]
            adversarial_weight = s.disc_weight * adaptive_weight(*pulls)
            gradient = gradient + adversarial_weight * adversarial_gradient

        regularization_loss = self._regularization_loss(out, weight)
        roots: list[tuple[Tensor, Tensor | None]] = [(out.x_hat, gradient)] if paints else []
        if regularization_loss.requires_grad:  # not where the encoder is frozen
            roots.append((regularization_loss, None))
        torch.autograd.backward([root for root, _ in roots], [start for _, start in roots])
        total = reconstruction_loss + adversarial_weight * adversarial + regularization_loss
        losses = Losses(
            total=total,
            adversarial=adversarial,
            adversarial_weight=adversarial_weight,
            bpp=out.bpp.mean(),
            kl=out.kl.mean(),
            commitment=out.commitment.mean(),
            **terms,
        )
        return Losses(**{name: value.detach() for name, value in vars(losses).items()})

    def discriminator_loss(self, x: Tensor, x_hat: Tensor, step: int, discriminator: nn.Module) -> Tensor:
        """What the discriminator minimises, on the parts that the step's other losses saw. A scalar with gradients."""
        parts = self.parts(len(x), x.shape[-1], step)
        scales = self._judged(discriminator, parts.of(x), parts.of(x_hat.detach()), step)
        return _mean([discriminator_loss(real, fake, self.settings.adversarial) for real, fake in scales])

    def _judged(self, discriminator: nn.Module, x: Tensor, x_hat: Tensor, step: int) -> list[tuple[Tensor, Tensor]]:
        """Logits of pictures and of their reconstructions, at each of the scales that the discriminator judges at."""
        if self.settings.discriminator == "projected":
            x, x_hat = augmented([x, x_hat], self.settings.seed + step)
        with self.settings.autocast(x.device):
            logits = discriminator(torch.cat([x, x_hat]))
        scales = logits if isinstance(logits, list) else [logits]
        return [(real, fake) for real, fake in (scale.chunk(2) for scale in scales)]

    def score(self, x: Tensor, out: TrainingOutput, rate: Tensor) -> tuple[Tensor, Tensor]:
        """L without its adversarial part and with whole pictures, for validation, and the perceptual distance. (B,)"""
        weight = self._lagrangian_weight(rate)
        s = self.settings
        error = weight * squared_error((out.x_hat - x) * 127.5, s.means_weights, s.chroma_weight)
        distance = distortion = x.new_zeros(len(x))
        if self.perceptual is not None:
            distance, distortion = self._seen(out.x_hat, x)
        elif not s.has_ssim:
            return out.bpp + error, distance
        seen = s.perceptual_weight * distance + s.wasserstein_weight * distortion
        if s.has_ssim:
            seen = seen + s.ssim_weight * (1 - ssim(out.x_hat, x))
        relative = self._relative(weight, PERCEPTUAL_POWER)
        return out.bpp + s.reconstruction_share * error + relative * seen, distance

    def parts(self, batch: int, side: int, step: int) -> "Parts":
        """Which parts of which crops the costly losses see. The choice follows the step."""
        s = self.settings
        generator = torch.Generator().manual_seed(s.seed + step)
        chosen: Tensor | slice = slice(None)
        if self.crops < batch:
            chosen = torch.randperm(batch, generator=generator)[: self.crops]
        small = min(s.perceptual_crop, side)
        top, left = torch.randint(0, side - small + 1, (2,), generator=generator).tolist()
        return Parts(chosen, top, left, small)

    def _seen(self, x_hat: Tensor, x: Tensor, type_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The perceptual distance (B,), and the Wasserstein distortion (B,) on the same features, or zeros."""
        assert self.perceptual is not None
        s = self.settings
        if not s.wasserstein_weight:
            return self.perceptual(x_hat, x), x.new_zeros(len(x))
        assert isinstance(self.perceptual, FeatureDistance)
        with torch.no_grad():
            features = self.perceptual.features(x)
        features_hat = self.perceptual.features(x_hat)
        distance = self.perceptual.between(features_hat, self.perceptual.normalised(features))
        log_sigma = log_sigma_of(x, s.wasserstein_scale, type_mask)
        return distance, wasserstein_distortion(features_hat[:LAYERS], features[:LAYERS], log_sigma)

    def _reconstruction_loss(
        self,
        x: Tensor,
        x_hat: Tensor,
        weight: Tensor,
        parts: "Parts",
        progress: float,
        step: int,
        type_mask: Tensor | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_rec: the distance of pixels, of structure and of features."""
        s = self.settings
        begun = progress >= s.perceptual_start
        with_perceptual, with_ssim = begun and self.perceptual is not None, begun and s.has_ssim
        share = s.reconstruction_share if with_perceptual or with_ssim else 1.0
        balance = self._relative(weight, -BALANCE_POWER)
        difference = (x_hat - x) * 127.5
        squared = difference.square().mean((1, 2, 3))
        if s.reconstruction == "l1":
            reconstruction = difference.abs().mean((1, 2, 3))
            total = (share * 2 * L1_LEVELS * balance * weight * reconstruction).mean()
        else:
            reconstruction = squared_error(difference, s.means_weights, s.chroma_weight)
            total = (share * balance * weight * reconstruction).mean()
        if type_mask is not None:
            total = total + s.type_weight * (balance * weight * (difference.abs() * type_mask).mean((1, 2, 3))).mean()
        perceptual = wasserstein = similarity = x.new_zeros(())
        relative = balance * self._relative(weight, PERCEPTUAL_POWER)
        if with_perceptual and step % s.perceptual_every == 0:
            with s.autocast(x.device):
                distance, distortion = self._seen_of_parts(
                    parts.of(x_hat), parts.of(x), None if type_mask is None else parts.of(type_mask)
                )
            seen = s.perceptual_weight * distance + s.wasserstein_weight * distortion
            total = total + s.perceptual_every * (relative[parts.chosen] * seen).mean()
            perceptual, wasserstein = (s.perceptual_every * value.mean() for value in (distance, distortion))
        if with_ssim:
            similarities = ssim(x_hat, x)
            total = total + s.ssim_weight * (relative * (1 - similarities)).mean()
            similarity = similarities.mean()
        return total, {
            "reconstruction": reconstruction.mean(),
            "squared_error": squared.mean(),
            "perceptual": perceptual,
            "wasserstein": wasserstein,
            "ssim": similarity,
        }

    def _regularization_loss(self, out: TrainingOutput, weight: Tensor) -> Tensor:
        """L_reg. The KL to N(0, 1) counts against the absolute error in [-1, 1], as in the paper.

        The commitment carries lambda too. Codes are means, so they are shorter than the latents they stand for, and the
        reconstruction loss, with straight-through gradients, asks for longer latents to make up for it; only a
        commitment of the same strength keeps them from running away.
        """
        s = self.settings
        commitment = s.commitment_weight * self._relative(weight, 1) * out.commitment
        kl = s.kl_weight * 2 * L1_LEVELS * 127.5 * weight * out.kl
        return (self._relative(weight, -BALANCE_POWER) * (out.bpp + commitment + kl)).mean()

    def _lagrangian_weight(self, rate: Tensor) -> Tensor:
        low, high = (math.log(value) for value in self.lambdas)
        return torch.exp(low + rate * (high - low))

    def _relative(self, weight: Tensor, power: float) -> Tensor:
        """A power of the weight against that in the middle of the range."""
        low, high = self.lambdas
        return (weight / math.sqrt(low * high)) ** power


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


@dataclass(frozen=True)
class Parts:
    """A window of some pictures of a batch."""

    chosen: Tensor | slice  # (n,) int64, or all of them
    top: int
    left: int
    side: int

    def of(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (n, C, side, side)."""
        return x[self.chosen, :, self.top : self.top + self.side, self.left : self.left + self.side]
