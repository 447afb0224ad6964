"""Scores of the robustness benchmark from the mIoU of every subset (Liao et al., arXiv 2503.18445).

With m_S the mIoU of subset S, N modalities, k_S of them missing:

    average      (1 / (2^N - 1)) sum_S m_S
    expected(p)  sum_S m_S p^k_S (1 - p)^(N - k_S) / sum_S p^k_S (1 - p)^(N - k_S)

The expected score is the expectation over modalities that fail independently with probability p,
given that not all fail. Raises `ValueError` unless all non-empty subsets are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FAILURE_PROBABILITIES = (0.2, 0.1, 0.05)

Subset = tuple[str, ...]


def average(miou_of: Mapping[Subset, float]) -> float:
    """Mean over the non-empty subsets."""
    _require_all(miou_of)
    return sum(miou_of.values()) / len(miou_of)


def expected(miou_of: Mapping[Subset, float], p: float) -> float:
    """Mean over the non-empty subsets, weighted by the probability that exactly they remain."""
    num_modalities = _require_all(miou_of)
    weights = {
        subset: p ** (num_modalities - len(subset)) * (1 - p) ** len(subset) for subset in miou_of
    }
    return sum(miou_of[s] * weights[s] for s in miou_of) / sum(weights.values())


def summary(miou_of: Mapping[Subset, float]) -> dict[str, float]:
    """`average` and `expected_<p>` of a table of subsets."""
    by_probability = {f"expected_{p:g}": expected(miou_of, p) for p in FAILURE_PROBABILITIES}
    return {"average": average(miou_of), **by_probability}


def _require_all(miou_of: Mapping[Subset, float]) -> int:
    """N, if the subsets are the 2^N - 1 non-empty ones of N modalities."""
    names: Sequence[str] = sorted({name for subset in miou_of for name in subset})
    if len(miou_of) != 2 ** len(names) - 1:
        raise ValueError(f"expected {2 ** len(names) - 1} subsets of {names}, found {len(miou_of)}")
    return len(names)
