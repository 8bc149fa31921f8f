"""What the machine offers to compute with, and the host's networks for those who replace parts of them."""

import torch
from fairseq.modules import MultiheadAttention
from torch import nn


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies in bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def attend_by_modules(model: nn.Module) -> None:
    """Let the host's attention call its linear maps: on one of its paths it reads their weights, which a map of another
    kind does not have. Can go when it has no such path.
    """
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module.skip_embed_dim_check = True
