"""How often this process loaded a tower's weights: proof that a retraining loads none.

    tower_loads() -> {"image": 1, "depth": 1, "text": 1}

The one piece of global state in this room, since the promise is about the whole process. No torch.
"""

from __future__ import annotations

from collections import Counter

_LOADS: Counter[str] = Counter()


def count_load(tower: str) -> None:
    """Call it when the weights of `tower` (`text`: the text half) are read."""
    _LOADS[tower] += 1


def tower_loads() -> dict[str, int]:
    """Tower to the number of times that this process has loaded it; towers never loaded are left out."""
    return dict(_LOADS)
