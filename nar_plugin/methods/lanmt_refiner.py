"""The network that moves latents towards better translations: a score, which is the step itself, or an energy, of which
the step is minus the gradient (Lee, Shu & Cho 2020, arXiv 2009.07177, sections 3.2, 3.3)."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .transformer import Memory, Stack

Source = tuple[Memory, ...]


class StepNetwork(nn.Module):
    """s(z): (B, T, Z) latents to (B, T, Z) steps, 0 at pads. It knows neither positions nor the number of the step."""

    def __init__(self, stack: Stack, dim: int, latent_size: int, is_energy: bool) -> None:
        super().__init__()
        self.stack, self.is_energy = stack, is_energy
        self.lift = nn.Linear(latent_size, dim)
        self.output = nn.Linear(dim, 1 if is_energy else latent_size, bias=not is_energy)
        if is_energy:  # what is added last changes no slope: it would never have a gradient
            stack.last_norm.bias.requires_grad_(False)

    def states(self, latents: Tensor, mask: Tensor | None, memory: Source, is_source: Tensor | None) -> Tensor:
        return self.stack(self.lift(latents.to(memory[0][0].dtype)), mask, memory, is_source)  # latents are float32

    def negative_energy(self, latents: Tensor, mask: Tensor | None, memory: Source, is_source: Tensor | None) -> Tensor:
        """(B,): of the mean over a sentence's positions."""
        states = self.states(latents, mask, memory, is_source)
        if mask is None:
            return self.output(states.mean(1))[:, 0]
        return self.output((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))[:, 0]

    def forward(self, latents: Tensor, mask: Tensor | None, memory: Source, is_source: Tensor | None) -> Tensor:
        if self.is_energy:
            return self.slope(latents, mask, memory, is_source)
        step = self.output(self.states(latents, mask, memory, is_source)).float()
        return step if mask is None else step.masked_fill(~mask[..., None], 0.0)

    def slope(self, latents: Tensor, mask: Tensor | None, memory: Source, is_source: Tensor | None) -> Tensor:
        """The gradient of ``negative_energy``, also under ``no_grad``; elsewhere it has a gradient itself."""
        is_taught = torch.is_grad_enabled()
        # the fused kernels of attention have no second derivative, which training alone asks for
        kernels = sdpa_kernel(SDPBackend.MATH) if is_taught else nullcontext()
        with torch.enable_grad(), kernels:
            place = latents.detach().requires_grad_()
            total = self.negative_energy(place, mask, memory, is_source).float().sum()
            return torch.autograd.grad(total, place, create_graph=is_taught)[0]
