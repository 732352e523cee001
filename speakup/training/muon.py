"""Muon: momentum whose steps are orthogonalised, for matrices; AdamW for all the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Step matrices by the nearest orthogonal matrix to their momentum, the rest as AdamW does.

    All directions of a matrix learn at one rate, not only those that most examples share. A
    parameter of three axes is a stack of matrices, each orthogonalised on its own; of four, a
    convolution whose kernels are its rows.

    Args:
        matrices: Parameters with two axes and more.
        others: Vectors, and the first and last layers.
        lr: Of the matrices. A step's root mean square is a fifth of it, as AdamW's is.
        others_lr: Of the others, as a share of `lr`.
        momentum: Of the matrices.
        betas: AdamW's, of the others.
        weight_decay: Of the matrices: a weight shrinks by this times the rate in a step.

    Reference:
        Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks,
        kellerjordan.github.io/posts/muon; size of steps and weight decay: Liu et al. 2025,
        arXiv 2502.16982, section 2.2.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        others: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        others_lr: float = 0.5,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.0,
    ) -> None:
        groups = [
            {"params": list(matrices), "orthogonal": True, "share": 1.0},
            {"params": list(others), "orthogonal": False, "share": others_lr},
        ]
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            move = self._orthogonal_step if group["orthogonal"] else self._adam_step
            for weight in group["params"]:
                if weight.grad is not None:
                    move(weight, group)

    def _orthogonal_step(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum, rate = state["momentum"], group["lr"] * group["share"]
        gradient = _gradient(weight)
        momentum.lerp_(gradient, 1.0 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])
        matrices = ahead.flatten(1) if ahead.ndim == 4 else ahead
        size = _SIZE * max(matrices.shape[-2:]) ** 0.5
        update = orthogonalised(matrices).view(weight.shape)
        weight.mul_(1.0 - rate * group["weight_decay"]).add_(update, alpha=-rate * size)

    def _adam_step(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        (first, second), step = group["betas"], state["step"]
        gradient = _gradient(weight)
        state["mean"].lerp_(gradient, 1.0 - first)
        state["square"].lerp_(gradient.square(), 1.0 - second)
        spread = (state["square"] / (1.0 - second**step)).sqrt_().add_(1e-8)
        rate = group["lr"] * group["share"] / (1.0 - first**step)
        weight.addcdiv_(state["mean"], spread, value=-rate)


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def orthogonalised(matrices: Tensor) -> Tensor:
    """Give about the nearest matrices with orthonormal rows or columns, of the same shape.

    Five Newton-Schulz steps in bfloat16 bring singular values to between 0.7 and 1.2: X becomes
    a X + (b A + c A A) X with A = X X'.

    Args:
        matrices: (M, N) or a stack (K, M, N).
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    scale = wide.square().sum((-2, -1), keepdim=True).sqrt().clamp_min(1e-12)
    wide = (wide / scale).bfloat16()
    stack = wide if wide.ndim == 3 else wide[None]
    for _ in range(_ITERATIONS):
        gram = stack @ stack.mT
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        stack = torch.baddbmm(stack, factor, stack, beta=a)
    wide = stack.view_as(wide)
    return (wide.mT if tall else wide).to(matrices.dtype)
