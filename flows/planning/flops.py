"""FLOPs of a vision tower on one image, from its shape alone. No torch.

Counted like PyTorch's FlopCounterMode: two operations for each multiply-add, in matrix products,
convolution and attention; norms, softmax and activations (below one per cent) are left out. Exact
for LanguageBind's towers of one frame (image, depth, thermal); of other vision transformers the
pooling heads and the dense outputs of self-supervised ones (which cost nothing) are left out as well.
A tower that states no shape is of unknown cost: None.
"""

from __future__ import annotations

from teacher.contract import TeacherTower, VitShape


def num_tokens(tower: TeacherTower) -> int | None:
    """Tokens of one image: its patches, the class token and registers; None: unknown."""
    shape = _shape(tower)
    return _tokens(shape) if shape else None


def flops_per_image(tower: TeacherTower, *, patch: bool) -> int | None:
    """Operations for one image; `patch` adds the dense embeddings. None: unknown.

    With N tokens, P patches of p pixels, width D, MLP width F, joint width E and L layers:
    2 P D 3p^2 + L (8 N D^2 + 4 N^2 D + 4 N D F) + 2 D E, and for the dense ones 4 P D^2 + 2 P D E.
    """
    shape = _shape(tower)
    if shape is None:
        return None
    tokens, width, joint = _tokens(shape), shape.hidden_size, shape.projection_dim
    patches = shape.grid[0] * shape.grid[1]
    embedding = 2 * patches * width * 3 * shape.patch_px**2
    attention = 8 * tokens * width**2 + 4 * tokens**2 * width
    mlp = 2 * (1 + shape.num_mlp_inputs) * tokens * width * shape.intermediate_size
    total = embedding + shape.num_layers * (attention + mlp) + 2 * width * joint
    if patch and joint:
        total += 4 * patches * width**2 + 2 * patches * width * joint
    return total


def _shape(tower: TeacherTower) -> VitShape | None:
    shape: VitShape | None = getattr(tower, "shape", None)
    return shape


def _tokens(shape: VitShape) -> int:
    return shape.grid[0] * shape.grid[1] + shape.num_prefix
