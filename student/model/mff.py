"""Modality-agnostic feature fusion (MFF): parameter-free, for any number of present modalities.

Any2Seg (Zheng et al., ECCV 2024) publishes no code; this is our reading of its Fig. 3, per
position: reference r = mean_m f_m; w_m = cos(f_m, r); f_b = mean_m w_m f_m; the modality m* most
similar to f_b gives f_s = f_m*; the fused feature is f_b + f_s. Absent modalities take no part in
any of it.

Every dot product above is a sum of entries of the Gram matrix G_mn = <f_m, f_n> of a position, so
that matrix is computed once and any number of subsets of the modalities is fused from it: the
output is sum_m a_m f_m with a_m = w_m / n + [m = m*], n being the number of present modalities.
Nothing depends on the order of the modalities: where several are equally similar to f_b, f_s is
their mean.

Legend: M modalities, B samples, C channels, H W space.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_NORM = 1e-8
"""Vectors shorter than this count as having this length (as in torch's cosine similarity)."""


def gram(features_MBCHW: Tensor) -> Tensor:
    """Dot products of all pairs of modalities at every position: (M, M, B, H, W)."""
    # Channels last is how the backbone leaves them; sums over contiguous channels are faster than
    # small matrix products.
    last_MBHWC = features_MBCHW.permute(0, 1, 3, 4, 2)
    return torch.stack([(last_MBHWC * one_BHWC).sum(-1) for one_BHWC in last_MBHWC])


def mff_weights(gram_MMBHW: Tensor, present_BM: Tensor) -> Tensor:
    """The factor a_m of each modality in the fused feature, (M, B, H, W); 0 where it is absent.

    present: (B, M) bool, at least one modality a sample. Differentiable but for the choice of m*.
    """
    present_MB11 = present_BM.T[:, :, None, None]
    # p_m = 1 / n for a present modality, else 0: r = sum_m p_m f_m.
    mean_MB11 = mean_weights(gram_MMBHW, present_BM)
    # |f_m| = sqrt(G_mm)
    norm_MBHW = _root(gram_MMBHW.diagonal(dim1=0, dim2=1).movedim(-1, 0))
    # <f_m, r> = sum_n p_n G_mn
    dot_reference_MBHW = (gram_MMBHW * mean_MB11).sum(1)
    # |r|^2 = sum_m p_m <f_m, r>
    reference_norm_BHW = _root((dot_reference_MBHW * mean_MB11).sum(0))
    # w_m = cos(f_m, r)
    cosine_MBHW = dot_reference_MBHW / (norm_MBHW * reference_norm_BHW)
    # f_b = sum_m (w_m p_m) f_m
    blend_MBHW = cosine_MBHW * mean_MB11
    with torch.no_grad():
        # cos(f_m, f_b) up to the factor 1 / |f_b|, which all modalities share:
        # <f_m, f_b> = sum_n (w_n p_n) G_mn
        similarity_MBHW = (gram_MMBHW * blend_MBHW).sum(1) / norm_MBHW
        similarity_MBHW.masked_fill_(~present_MB11, -torch.inf)
        # Ties share the choice, so that none is preferred by its order.
        best_MBHW = (similarity_MBHW == similarity_MBHW.amax(0)) & present_MB11
        choice_MBHW = best_MBHW / best_MBHW.sum(0).clamp_min(1)
    return blend_MBHW + choice_MBHW


def mean_weights(like: Tensor, present_BM: Tensor) -> Tensor:
    """The factors of the plain mean over the present modalities: (M, B, 1, 1) in `like`'s dtype."""
    present_MB = present_BM.T.to(like.dtype)
    return (present_MB / present_MB.sum(0).clamp_min(1))[:, :, None, None]


def weighted_sum(features_MBCHW: Tensor, weights_MBHW: Tensor) -> Tensor:
    """sum_m a_m f_m: (B, C, H, W). With a factor of 0 any finite value is left out."""
    return (features_MBCHW * weights_MBHW[:, :, None]).sum(0)


def mff(features_MBCHW: Tensor, present_BM: Tensor) -> Tensor:
    """The fused feature f_b + f_s of one stage: (B, C, H, W). Absent rows may hold anything."""
    clean = features_MBCHW.masked_fill(~present_BM.T[:, :, None, None, None], 0)
    return weighted_sum(clean, mff_weights(gram(clean), present_BM))


def _root(squares: Tensor) -> Tensor:
    """Square root of at least `MIN_NORM`, with a finite gradient at zero."""
    return squares.clamp_min(MIN_NORM * MIN_NORM).sqrt()
