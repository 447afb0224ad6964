"""FLOPs of a vision tower on one image, from its config.json alone. No torch.

Counted like PyTorch's FlopCounterMode: two operations for each multiply-add, in matrix products,
convolution and attention; norms, softmax and activations (below one per cent) are left out. Exact
for towers of one frame (image, depth, thermal); a video tower repeats it for every frame and
adds its temporal blocks, which are not counted here.
"""

from __future__ import annotations

from teacher.checkpoints.hub_config import HubConfig


def num_tokens(config: HubConfig) -> int:
    """Tokens of one image: its patches and the class token."""
    rows, columns = config.grid
    return rows * columns + 1


def flops_per_image(config: HubConfig, *, patch: bool) -> int:
    """Operations for one image; `patch` adds the dense embeddings.

    With N tokens, P = N - 1 patches of p pixels, width D, MLP width F, joint width E and L layers:
    2 P D 3p^2 + L (8 N D^2 + 4 N^2 D + 4 N D F) + 2 D E, and for the dense ones 4 P D^2 + 2 P D E.
    """
    vision = config.vision
    tokens, width = num_tokens(config), int(vision["hidden_size"])
    patches, inner = tokens - 1, int(vision["intermediate_size"])
    embedding = 2 * patches * width * 3 * int(vision["patch_size"]) ** 2
    attention = 8 * tokens * width**2 + 4 * tokens**2 * width
    mlp = 4 * tokens * width * inner
    total = embedding + int(vision["num_hidden_layers"]) * (attention + mlp)
    total += 2 * width * config.projection_dim
    if patch:
        total += 4 * patches * width**2 + 2 * patches * width * config.projection_dim
    return total
