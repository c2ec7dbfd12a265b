"""Where products in bfloat16 are faster than in float32."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself.

    A CPU that does not (AVX2, or AVX-512 without the extension for it) rounds every product apart: a step of training
    then takes about three times as long, and one of effort ten times.
    """
    if device.type != "cpu":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
