"""Several towers and one text tower behind one call, with upstream's temperature semantics.

Upstream's wrapper normalises every embedding and, with `use_temp` (its default), multiplies each
non-language one by exp of that tower's own logit scale: those outputs are not unit vectors, and a
product of two of them carries both scales. Its language tower is that of the last entry.

Writes nothing. Fails as `load_tower` and `load_text_tower` do; a name that is not loaded is a
`ConfigError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.modalities import TowerName
from teacher.towers.text_tower import TextTower, load_text_tower
from teacher.towers.vision_tower import Tower, load_tower

LANGUAGE = "language"
TokenIds = tuple[Tensor, Tensor]
"""(input_ids, attention_mask), both (N, L)."""


@dataclass(frozen=True, slots=True)
class Container:
    """Vision towers by modality, and a text tower."""

    towers: Mapping[TowerName, Tower]
    text: TextTower

    def encode(
        self, inputs: Mapping[str, Tensor | TokenIds], *, use_temp: bool = True
    ) -> dict[str, Tensor]:
        """Embed pixel values by modality, and (input_ids, attention_mask) under `language`.

        Returns (B, E) per name; unit norm for `language`, and for all without `use_temp`.
        """
        return {name: self._embed(name, value, use_temp) for name, value in inputs.items()}

    def _embed(self, name: str, value: Tensor | TokenIds, use_temp: bool) -> Tensor:
        if name == LANGUAGE and isinstance(value, tuple):
            return self.text.encode_ids(*value).embedding
        tower = next((tower for modality, tower in self.towers.items() if modality == name), None)
        if tower is None or isinstance(value, tuple):
            raise ConfigError(
                f"container input {name!r}: expected token ids under {LANGUAGE!r} or pixel values "
                f"under one of {', '.join(self.towers)}"
            )
        embedding = tower.encode(value).embedding
        return embedding * math.exp(tower.logit_scale) if use_temp else embedding


def load_container(
    sources: Mapping[TowerName, str],
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
) -> Container:
    """Load one tower a modality; the text tower comes from the last source."""
    towers = {
        modality: load_tower(source, modality, dtype=dtype, device=device)
        for modality, source in sources.items()
    }
    last = list(sources.values())[-1]
    return Container(towers, load_text_tower(last, dtype=dtype, device=device))
