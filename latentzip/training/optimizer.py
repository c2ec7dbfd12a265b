"""Muon for the kernels of hidden layers, AdamW for everything else: best at equal minutes (docs/training.md)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from latentzip.training.checkpoint import is_like

MIN_KERNEL_SIDE = 32  # kernels thinner than this gain nothing from orthogonalised steps
# Of Muon, times the learning rate, each step: without it kernels walk until hidden channels are silent (see `silence`).
WEIGHT_DECAY = 0.1


class MixedOptimizer:
    """torch.optim.Muon takes matrices only: kernels are handed to it as flattened views of their own storage.

    Muon: Jordan 2024; its steps are matched to AdamW's size as in Moonlight (arXiv 2502.16982).
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, slow: Iterable[nn.Module] = (), slow_share: float = 1.0
    ) -> None:
        """Modules in `slow` learn at `slow_share` of the rate."""
        self.slow_share = slow_share
        held_back = {id(p) for module in slow for p in module.parameters()}
        self.kernels = [p for name, p in model.named_parameters() if is_hidden_kernel(name, p)]
        hidden = set(map(id, self.kernels))
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in hidden]
        self.matrices = [nn.Parameter(as_matrix(p.data)) for p in self.kernels]
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            assert kernel.data_ptr() == matrix.data_ptr(), "a view is needed, so that a step reaches the kernel"
        self.parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                _groups(rest, [id(p) in held_back for p in rest]), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0
            )
        }
        if self.matrices:
            # four iterations orthogonalise well enough, and the fifth costs more than it gives here
            self.parts["muon"] = torch.optim.Muon(
                _groups(self.matrices, [id(p) in held_back for p in self.kernels]),
                lr=learning_rate,
                weight_decay=WEIGHT_DECAY,
                ns_steps=4,
                adjust_lr_fn="match_rms_adamw",
            )

    def step(self, learning_rate: float) -> None:
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad)
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = learning_rate * (self.slow_share if group["slow"] else 1.0)
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where it does not fit."""
        if state.keys() != self.parts.keys():
            raise ValueError("its optimizer has other parts")
        for name, part in self.parts.items():
            load_moments(part, state[name])


_MOMENTS: dict[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.Muon: {"momentum_buffer"},
}


def load_moments(optimizer: torch.optim.Optimizer, found: object) -> None:
    """What an optimiser has gathered, from its `state_dict` of before; its rates and the like stay what they are.

    Raises ValueError where that does not fit the parameters.
    """
    state = found.get("state") if isinstance(found, dict) else None
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if not isinstance(state, dict) or not state.keys() <= set(range(len(parameters))):
        raise ValueError("its optimizer is of other parameters")
    for number, moments in state.items():
        if not isinstance(moments, dict) or moments.keys() != _MOMENTS[type(optimizer)]:
            raise ValueError("its optimizer is of another kind")
        like = {"step": torch.tensor(0.0), **dict.fromkeys(moments.keys() - {"step"}, parameters[number])}
        if not all(is_like(moment, like[name]) for name, moment in moments.items()):
            raise ValueError("its optimizer has values of other shapes, or that are not finite")
        if moments.get("step", 0) < 0:
            raise ValueError("its optimizer has made fewer steps than none")
    own = {number: {name: moment.clone() for name, moment in moments.items()} for number, moments in state.items()}
    optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})


def _groups(parameters: list[nn.Parameter], slow: list[bool]) -> list[dict[str, Any]]:
    """Parameter groups, those without parameters left out."""
    groups = [
        {"params": [p for p, is_slow in zip(parameters, slow, strict=True) if is_slow == wanted], "slow": wanted}
        for wanted in (False, True)
    ]
    return [group for group in groups if group["params"]]


def is_hidden_kernel(name: str, p: Tensor) -> bool:
    return p.requires_grad and p.ndim == 4 and min(p.shape[:2]) >= MIN_KERNEL_SIDE and ".linear." not in f".{name}"


def as_matrix(kernel: Tensor) -> Tensor:
    """(O, I, kh, kw) -> (O, kh*kw*I), a view for channels-last memory: the order of columns is indifferent to Muon."""
    return kernel.permute(0, 2, 3, 1).reshape(kernel.shape[0], -1)
