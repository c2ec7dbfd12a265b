"""Stages of a KL model's training on one GPU: python weights/gpu.py PICTURES MODEL OUT --vgg FILE

`latentzip train` with the pictures in the GPU's memory and every step, from the choice of crops to the average of the
weights, one CUDA graph: on small crops it is otherwise the launching of kernels that takes the time. It made kl-f16
(docs/training.md). MODEL is a weights file, perhaps grown: see `grow`. OUT becomes a folder for weights/update.py.
"""

import argparse
import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentzip.images import Pixels
from latentzip.models.autoencoder import Autoencoder, KlLatent
from latentzip.models.config import AutoencoderConfig
from latentzip.training.data import DRAWN, Pictures, load_pictures
from latentzip.training.losses import Objective
from latentzip.training.optimizer import WEIGHT_DECAY, as_matrix, is_hidden_kernel
from latentzip.training.perceptual import PerceptualDistance
from latentzip.training.settings import TrainSettings
from latentzip.training.start import start
from latentzip.training.validation import validate
from latentzip.training.vgg import VggDistance
from latentzip.zoo.checkpoints import MODEL_NAME, read_config, save_weights

SHRINKS = (1.25, 1.5, 1.75, 2.0)  # of which half of the crops come, in equal parts
REPLAYS = 10  # of the graph, between two looks at the clock
REPORT_SECONDS, VALIDATION_SECONDS = 10.0, 75.0
VGG_BLOCKS, VGG_WEIGHT = 3, 0.58  # the deeper layers cost more than they give (docs/training.md)
SSIM_WEIGHT = 3.0


class Sampler:
    """Crops of pictures that lie in the GPU's memory, of shrunk ones too, and a few drawn ones (see training.data)."""

    def __init__(self, pictures: list[Pixels], batch: int, crop: int, device: torch.device) -> None:
        self.batch, self.crop, self.device = batch, crop, device
        pixels: list[Tensor] = []
        table: list[tuple[int, int, int]] = []
        weights: list[float] = []
        begin = 0
        for picture in pictures:
            for shrink in (1.0, *SHRINKS):
                part = _shrunk(torch.from_numpy(picture.copy()).to(device), shrink)
                if min(part.shape[:2]) < crop:
                    continue
                table.append((begin, *part.shape[:2]))
                pixels.append((part[..., 0] | part[..., 1] << 8 | part[..., 2] << 16).flatten())
                begin += len(pixels[-1])
                weights.append(math.sqrt(picture.size) * (0.5 if shrink == 1.0 else 0.5 / len(SHRINKS)))
        self.pixels = torch.cat(pixels)  # R, G and B in one int32
        self.table = torch.tensor(table, device=device)  # where each begins, its height and width
        self.until = torch.tensor(weights, dtype=torch.float64, device=device).cumsum(0)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """x (B, 3, crop, crop) float in [-1, 1] and rates (B,), spread evenly over [0, 1]."""
        side = torch.arange(self.crop, device=self.device)
        which, row, column, flip, drawn, rate = torch.rand(6, self.batch, device=self.device)
        entry = torch.searchsorted(self.until, which.double() * self.until[-1]).clamp(max=len(self.until) - 1)
        begin, height, width = self.table[entry].unbind(1)
        top, left = ((u * (extent - self.crop + 1)).long() for u, extent in ((row, height), (column, width)))
        across = torch.where(flip[:, None] < 0.5, side.flip(0), side)  # (B, crop)
        place = (begin + top * width + left)[:, None, None] + side[:, None] * width[:, None, None] + across[:, None]
        packed = self.pixels[place]
        levels = torch.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], 1).float()
        levels = torch.where((drawn < DRAWN)[:, None, None, None], self._drawn(side / self.crop), levels)
        x = (levels / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        return x, (torch.arange(self.batch, device=self.device) + rate) / self.batch

    def _drawn(self, along: Tensor) -> Tensor:
        """Grounds of one colour or a slope, grey or not, some with a rectangle. (B, 3, crop, crop) in 0..255."""
        dice = torch.rand(6, self.batch, device=self.device)
        colors = torch.rand(self.batch, 4, 3, device=self.device)
        colors = torch.where(dice[0, :, None, None] < 0.5, colors[..., :1], colors)[..., None, None]
        slope = 300 * (dice[1] - 0.5).clamp(min=0)[:, None, None, None]
        slopes = [(color - 0.5) * slope for color in colors[:, 2:].unbind(1)]
        ground = 255 * colors[:, 0] + slopes[0] * along[:, None] + slopes[1] * along
        down, right = (
            (along > 0.8 * begin[:, None]) & (along < 0.8 * begin[:, None] + 0.05 + 0.6 * extent[:, None])
            for begin, extent in (dice[2:4], dice[4:6])
        )
        box = (down[:, :, None] & right[:, None])[:, None] & (torch.rand_like(slope) < 0.35)
        return torch.where(box, 255 * colors[:, 1], ground).round().clamp(0, 255)


def _shrunk(pixels: Tensor, by: float) -> Tensor:
    """(H, W, 3) uint8 -> (H / by, W / by, 3) int32."""
    if by == 1.0:
        return pixels.int()
    size = [round(extent / by) for extent in pixels.shape[:2]]
    planes = F.interpolate(pixels.permute(2, 0, 1)[None].float(), size=size, mode="bicubic", antialias=True)
    return planes[0].permute(1, 2, 0).round().clamp(0, 255).int()


class StackedOptimizer:
    """training.optimizer's Muon and AdamW; Muon's steps for all kernels of a shape at once, the rate in a tensor."""

    MOMENTUM, STEPS, COEFFICIENTS = 0.95, 4, (3.4445, -4.7750, 2.0315)  # torch.optim.Muon's, and its steps there

    def __init__(self, model: nn.Module, learning_rate: Tensor) -> None:
        self.learning_rate = learning_rate
        self.parameters = list(model.parameters())
        groups: dict[torch.Size, list[nn.Parameter]] = {}
        rest = []
        for name, p in model.named_parameters():
            if is_hidden_kernel(name, p):
                groups.setdefault(as_matrix(p.data).shape, []).append(p)
            else:
                rest.append(p)
        self.kernels = list(groups.values())
        self.matrices = [[as_matrix(p.data) for p in group] for group in self.kernels]
        self.momenta = [torch.stack(group).zero_() for group in self.matrices]
        on_gpu = learning_rate.is_cuda
        self.adamw = torch.optim.AdamW(
            rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=on_gpu or None, capturable=on_gpu
        )

    @torch.no_grad()
    def step(self) -> None:
        for kernels, matrices, momentum in zip(self.kernels, self.matrices, self.momenta, strict=True):
            gradient = torch.stack([as_matrix(p.grad) for p in kernels if p.grad is not None])
            momentum.lerp_(gradient, 1 - self.MOMENTUM)
            step = self._orthogonal(gradient.lerp(momentum, self.MOMENTUM).bfloat16()).float()
            size = 0.2 * math.sqrt(max(step.shape[1:]))
            torch._foreach_mul_(matrices, 1 - self.learning_rate * WEIGHT_DECAY)
            torch._foreach_add_(matrices, list((step * (-size * self.learning_rate)).unbind()))
        self.adamw.step()

    def _orthogonal(self, x: Tensor) -> Tensor:
        """(n, rows, columns): Newton-Schulz iterations for each matrix."""
        turned = x.shape[1] > x.shape[2]
        x = x.mT if turned else x
        x = x / torch.linalg.vector_norm(x.float(), dim=(1, 2), keepdim=True).clamp_min(1e-7).bfloat16()
        a, b, c = self.COEFFICIENTS
        for _ in range(self.STEPS):
            square = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x.mT if turned else x


class Stage:
    """A part of a run with settings of its own: what a step does, and for how long."""

    def __init__(
        self,
        model: Autoencoder,
        averages: dict[str, Tensor],
        sample: Sampler,
        settings: TrainSettings,
        perceptual: PerceptualDistance | None,
    ) -> None:
        self.model, self.averages, self.sample, self.settings = model, averages, sample, settings
        self.objective = Objective(settings, model.config.lambdas, perceptual)
        self.learning_rate = torch.zeros((), device=sample.device)
        self.optimizer = StackedOptimizer(model, self.learning_rate)
        self.means = torch.zeros(3, device=sample.device)

    def step(self) -> None:
        x, rate = self.sample()
        with self.settings.autocast(x.device):
            out = self.model(x, rate)
        self.model.zero_grad(set_to_none=True)
        losses = self.objective.backward(x, out, rate, self.model.decoder.last_layer, progress=1.0, step=0)
        nn.utils.clip_grad_norm_(self.optimizer.parameters, self.settings.gradient_clip)
        self.optimizer.step()
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            kept = [self.averages[name] for name in parameters]
            torch._foreach_lerp_(kept, list(parameters.values()), 1 - self.settings.ema_decay)
            self.means.lerp_(torch.stack([losses.bpp, losses.squared_error, losses.perceptual]), 0.01)

    def captured(self) -> Callable[[], None]:
        """The step, after a few at a rate of zero, in which libraries choose their kernels."""
        if self.sample.device.type != "cuda":
            return self.step
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def run(self, held_out: list[Pixels], save: Callable[[int, float], None]) -> None:
        step = self.captured()
        assert self.settings.max_minutes is not None
        seconds, started, steps = 60 * self.settings.max_minutes, time.monotonic(), 0
        reported = validated = started
        while (now := time.monotonic()) - started < seconds:
            self.learning_rate.fill_(self._rate_at((now - started) / seconds, steps))
            for _ in range(REPLAYS):
                step()
            steps += REPLAYS
            if self.sample.device.type == "cuda":
                torch.cuda.synchronize()
            if now - reported > REPORT_SECONDS:
                bpp, error, distance = self.means.tolist()
                psnr = 10 * math.log10(255**2 / error)
                print(f"step {steps}  {bpp:.3f} bpp  {psnr:.2f} dB  {distance:.3f}", flush=True)
                reported = now
            if now - validated > VALIDATION_SECONDS:
                self._validate(held_out)
                save(steps, (now - started) / 60)
                validated = now
        self._validate(held_out)
        save(steps, self.settings.max_minutes)

    def _rate_at(self, progress: float, steps: int) -> float:
        s = self.settings
        fall = 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress)) if s.schedule == "cosine" else 1.0
        return s.learning_rate * fall * min(1.0, (steps + 1) / s.warmup_steps)

    def _validate(self, held_out: list[Pixels]) -> None:
        record, _ = validate(self.model, self.averages, held_out, self.objective)
        figures = (f"{r['bpp']:.3f} bpp {r['psnr']:.2f} dB {r['perceptual']:.3f}" for r in record["rates"])
        print("held out:", " | ".join(figures), f"silent {record['silent']:.0%}", flush=True)


def in_float32(model: Autoencoder) -> None:
    """Let analysis and prior go without autocast: files are coded exactly, and next to the networks they are small."""
    assert isinstance(model.latent, KlLatent)
    plain = torch.autocast("cuda", enabled=False)
    model.analysis.forward = plain(model.analysis.forward)  # type: ignore[method-assign]
    model.latent.prior.sweep = plain(model.latent.prior.sweep)  # type: ignore[method-assign]


def grow(model: Path, fields: str, pictures: Pictures, settings: TrainSettings) -> Autoencoder:
    """The model with other fields of its config, given as JSON, begun from it as by `latentzip train --init`."""
    config = read_config(model)
    assert isinstance(config, AutoencoderConfig)
    changes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(fields).items()}
    grown = Autoencoder(dataclasses.replace(config, **changes))
    print(start(grown, pictures, dataclasses.replace(settings, init=str(model))))
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vgg", type=Path, required=True)
    parser.add_argument("--grow", default="{}", help="fields of AutoencoderConfig as JSON")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=192)
    parser.add_argument(
        "--minutes", type=float, nargs=2, default=(0.0, 9.7), help="of squared error, and with VGG16 (docs/training.md)"
    )
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()

    device = torch.device(arguments.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    pictures = load_pictures(arguments.pictures, arguments.crop, 1 << 40)
    sample = Sampler(pictures.train, arguments.batch, arguments.crop, device)
    common = TrainSettings(
        max_minutes=sum(arguments.minutes),
        init=arguments.model.stem,
        batch=arguments.batch,
        crop=arguments.crop,
        learning_rate=1.5e-3,
        schedule="constant",
        warmup_steps=150,
        perceptual="none",
        ssim_weight=0.0,
        disc_weight=0.0,
    )
    model = grow(arguments.model, arguments.grow, pictures, common)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    in_float32(model)
    averages = copy.deepcopy(model.state_dict())
    vgg = VggDistance(arguments.vgg, VGG_BLOCKS).to(device)
    with_vgg = dataclasses.replace(
        common,
        learning_rate=1e-3,
        schedule="cosine",
        perceptual=str(arguments.vgg),
        perceptual_weight=VGG_WEIGHT,
        perceptual_crops=arguments.batch,
        perceptual_crop=arguments.crop,
        reconstruction_share=0.8,
        ssim_weight=SSIM_WEIGHT,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    for minutes, settings, perceptual in zip(arguments.minutes, (common, with_vgg), (None, vgg), strict=True):
        if not minutes:
            continue
        settings = dataclasses.replace(settings, max_minutes=minutes)

        def save(steps: int, minutes: float, settings: TrainSettings = settings) -> None:
            notes = {"steps": str(steps), "minutes": f"{minutes:.1f}", "settings": settings.to_public_json()}
            save_weights(arguments.out / MODEL_NAME, model.config, averages, notes)

        Stage(model, averages, sample, settings, perceptual).run(pictures.held_out, save)


if __name__ == "__main__":
    main()
