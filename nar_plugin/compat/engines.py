"""What the machine offers to compute with, and the host's networks for those who replace parts of them."""

import ctypes
from typing import List

import torch
from fairseq.modules import MultiheadAttention
from fairseq.modules.transformer_layer import TransformerDecoderLayerBase, TransformerEncoderLayerBase
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's ``mallopt``: how much free memory is kept at the top; how many blocks are the system's own."""


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies in bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_freed_memory() -> None:
    """Let memory that was freed serve the next pass. glibc gives large blocks back to the system, and the pages of new
    ones, which the system zeroes, cost more than what is computed in them: a copy of a batch's logits takes seven times
    as long. The process stays as large as it was at its largest. Can go when torch's allocator keeps blocks on a CPU.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, -1)


def attend_by_modules(model: nn.Module) -> None:
    """Let the host's attention call its linear maps: on one of its paths it reads their weights, which a map of another
    kind does not have. Can go when it has no such path.
    """
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            module.skip_embed_dim_check = True


def expect_many_shapes() -> None:
    """A pass is compiled anew where a size is 1, and with a mask and without: torch gives up after 8 such changes."""
    from torch._dynamo import config as dynamo_config  # which takes seconds to load

    name = "recompile_limit" if hasattr(dynamo_config, "recompile_limit") else "cache_size_limit"  # until torch 2.6
    setattr(dynamo_config, name, 64)


def seconds_of_compiling() -> float:
    """What this process has spent in torch.compile."""
    from torch._dynamo import utils  # which takes seconds to load

    return sum(utils.compilation_time_metrics.get("_compile.compile_inner", ()))


def layers_of(model: nn.Module) -> List[nn.Module]:
    """The layers of the host's encoder and decoder: what stands around them branches on data."""
    kinds = TransformerEncoderLayerBase, TransformerDecoderLayerBase
    return [module for module in model.modules() if isinstance(module, kinds)]
