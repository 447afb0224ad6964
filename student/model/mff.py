"""Modality-agnostic feature fusion (MFF): parameter-free, for any number of present modalities.

Any2Seg (Zheng et al., ECCV 2024) publishes no code; this is our reading of its Fig. 3, per
position: reference r = mean_m f_m; w_m = cos(f_m, r); f_b = mean_m w_m f_m; the modality m* most
similar to f_b gives f_s = f_m*; the fused feature is f_b + f_s. Absent modalities take no part in
any of it.

Every dot product above is a sum of entries of the Gram matrix <f_m, f_n> of a position, so that
matrix is computed once and any number of subsets of the modalities is fused from it: the output is
sum_m a_m f_m with a_m = w_m / n + [m = m*]. Nothing depends on the order of the modalities: where
several are exactly as similar to f_b, f_s is their mean.

Whether the fused feature of one stage feeds the next is not known of the paper either. As an option
the reference takes up a carried map c, r = mean_m f_m + c, which enters through <f_m, c> and <c, c>.

Legend: M modalities, B samples, C channels, H W space. Writes nothing, raises nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-8
"""Vectors shorter than this count as having this length (as torch's cosine similarity does)."""


class Carried(NamedTuple):
    """What of a carried map c the weights depend on."""

    dots: Tensor
    """(M, B, H, W): <f_m, c>"""
    square: Tensor
    """(B, H, W): <c, c>"""


def carried_products(features_MBCHW: Tensor, carried_BCHW: Tensor) -> Carried:
    """The dot products of a map carried from the stage before."""
    return Carried((features_MBCHW * carried_BCHW).sum(2), carried_BCHW.square().sum(1))


def gram(features_MBCHW: Tensor) -> Tensor:
    """Dot products of all pairs of modalities at every position: (M, M, B, H, W)."""
    # Channels last is how the backbone leaves them; sums over contiguous channels beat small
    # matmuls.
    last_MBHWC = features_MBCHW.permute(0, 1, 3, 4, 2)
    return torch.stack([(last_MBHWC * one_BHWC).sum(-1) for one_BHWC in last_MBHWC])


def mff_weights(gram_MMBHW: Tensor, present_BM: Tensor, carried: Carried | None = None) -> Tensor:
    """The factor of each modality in the fused feature, (M, B, H, W); 0 where it is absent.

    present: (B, M) bool, at least one modality a sample. Differentiable but for the choice of m*.
    """
    present_MB11 = present_BM.T[:, :, None, None]
    share_MB11 = mean_weights(gram_MMBHW, present_BM)
    length_MBHW = _root(gram_MMBHW.diagonal(dim1=0, dim2=1).movedim(-1, 0))
    with_reference_MBHW = (gram_MMBHW * share_MB11).sum(1)
    reference_square_BHW = (with_reference_MBHW * share_MB11).sum(0)
    if carried is not None:
        both_BHW = (carried.dots * share_MB11).sum(0)
        reference_square_BHW = reference_square_BHW + 2 * both_BHW + carried.square
        with_reference_MBHW = with_reference_MBHW + carried.dots
    reference_length_BHW = _root(reference_square_BHW)
    cosine_MBHW = with_reference_MBHW / (length_MBHW * reference_length_BHW)
    blend_MBHW = cosine_MBHW * share_MB11
    with torch.no_grad():
        similarity_MBHW = (gram_MMBHW * blend_MBHW).sum(1) / length_MBHW
        similarity_MBHW.masked_fill_(~present_MB11, -torch.inf)
        best_MBHW = (similarity_MBHW == similarity_MBHW.amax(0)) & present_MB11
        choice_MBHW = best_MBHW / best_MBHW.sum(0).clamp_min(1)
    return blend_MBHW + choice_MBHW


def mean_weights(like: Tensor, present_BM: Tensor) -> Tensor:
    """The factors of the plain mean over the present modalities: (M, B, 1, 1) in `like`'s dtype."""
    present_MB = present_BM.T.to(like.dtype)
    return (present_MB / present_MB.sum(0).clamp_min(1))[:, :, None, None]


def weighted_sum(features_MBCHW: Tensor, weights_MBHW: Tensor) -> Tensor:
    """sum_m a_m f_m: (B, C, H, W). A factor of 0 leaves out whatever finite value stands there."""
    return (features_MBCHW * weights_MBHW[:, :, None]).sum(0)


def mff(features_MBCHW: Tensor, present_BM: Tensor, carried_BCHW: Tensor | None = None) -> Tensor:
    """The fused feature f_b + f_s of one stage: (B, C, H, W). Absent rows may hold anything."""
    clean = features_MBCHW.masked_fill(~present_BM.T[:, :, None, None, None], 0)
    carried = None if carried_BCHW is None else carried_products(clean, carried_BCHW)
    return weighted_sum(clean, mff_weights(gram(clean), present_BM, carried))


def _root(squares: Tensor) -> Tensor:
    """Square root that is at least `TINY`, with a finite gradient at zero."""
    return squares.clamp_min(TINY * TINY).sqrt()
