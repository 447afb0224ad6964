"""Several LanguageBind towers and one text tower in one call, with upstream's temperature semantics.

    python -m examples.languagebind_container LanguageBind scene.jpg depth.png --text "a street"

Upstream's wrapper multiplies, by default (`use_temp`), each embedding but the text's by the
exponential of its tower's logit scale: those are not unit vectors, and a product of two of them
carries both scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from teacher import TextTower, load_text_tower, load_tower
from teacher.towers.vision_network import VisionNetwork

TokenIds = tuple[Tensor, Tensor]
"""(input_ids, attention_mask), both (N, L)."""


@torch.inference_mode()
def embed_together(
    networks: Mapping[str, VisionNetwork],
    pixels: Mapping[str, Tensor],
    text: TextTower,
    token_ids: TokenIds,
    *,
    use_temp: bool = True,
) -> dict[str, Tensor]:
    """Embed pixel values by modality, and token ids under `language`.

    Returns (B, E) per name; unit norm for `language`, and for all without `use_temp`. Raises
    `KeyError` for a modality without a network.
    """
    embeddings = {}
    for name, values in pixels.items():
        network = networks[name]
        scale = network.logit_scale.exp() if use_temp else 1.0
        embeddings[name] = network(values).embedding * scale
    return embeddings | {"language": text.encode_ids(*token_ids).embedding}


def main(
    source: str,
    image: Path,
    depth: Path,
    text: Annotated[list[str], typer.Option(help="A text to score; repeatable.")],
) -> None:
    """Print how each text scores against an image, a depth map, and both (mean of the cosines)."""
    towers = {"image": load_tower(source, "image"), "depth": load_tower(source, "depth")}
    texts = load_text_tower(source)
    embeddings = embed_together(
        {name: tower.network for name, tower in towers.items()},
        {
            "image": towers["image"].preprocess([image]),
            "depth": towers["depth"].preprocess([depth]),
        },
        texts,
        texts.tokenize(text),
        use_temp=False,
    )
    for row, line in zip(embeddings["language"], text, strict=True):
        both = [float(embeddings[name][0] @ row) for name in towers]
        print(f"image {both[0]:.4f} depth {both[1]:.4f} mean {sum(both) / 2:.4f} {line}")


if __name__ == "__main__":
    typer.run(main)
