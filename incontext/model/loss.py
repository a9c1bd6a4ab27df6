"""The loss of paintings: a pure function, never computed at inference."""

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor


def painting_loss(
    painting: Tensor, target: Tensor, hidden: Tensor, valid: Tensor, beta: float = 0.01
) -> Tensor:
    """Average smooth L1 on normalized RGB over hidden × valid pixels.

    (SegGPT §3.1, official `forward_loss`, whose β is 0.01: nearly L1.)

    Args:
        painting, target: (B, 3, H, W).
        hidden: (B, h, w) bool patches, True = painted by the model, so part of the loss; H is a
            multiple of h and W of w.
        valid: broadcastable to (B, 3, H, W), 0 where a pixel does not count; other values weigh.
        beta: where the loss turns from square to linear.

    Returns:
        Scalar; 0 (with gradient 0) when no pixel counts.
    """
    # Sums over a picture overflow float16.
    painting, target = painting.float(), target.float()
    rows, columns = (t // h for t, h in zip(target.shape[-2:], hidden.shape[-2:], strict=True))
    pixels = repeat(hidden, "b h w -> b 1 (h r) (w c)", r=rows, c=columns).to(painting.dtype)
    weight = (pixels * valid).expand_as(painting)
    loss = F.smooth_l1_loss(painting, target, reduction="none", beta=beta)
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
