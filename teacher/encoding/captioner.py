"""Captions of stored pictures by a captioning model: any transformers image-text-to-text model.

A model with a chat template is asked through it; any other gets the prompt as the text to continue.
Decoding is greedy, so the same model, picture and prompt give the same caption. Only safetensors
weights are read and no code of a repository is run.

Writes nothing. Fails with `CheckpointError` for a model that cannot be loaded that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.teacher import DescriptionsConfig
from pipeline.core.hub import fetch_snapshot
from pipeline.errors import CheckpointError
from pipeline.modalities import ModalitySpec, to_unit_range
from teacher.encoding.identity import weights_digest

RENDERING_VERSION = 1
"""Raised when the same stored picture starts to be shown differently."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def find_model(options: DescriptionsConfig) -> Path:
    """The captioning model's folder, fetched from the hub if it is not a local one."""
    if Path(options.model).is_dir():
        return Path(options.model)
    return fetch_snapshot(options.model, _FILES, "descriptions.model", revision=options.revision)


def captioner_identity(options: DescriptionsConfig, folder: Path, cache: Path) -> dict[str, Any]:
    """Everything that captions depend on, JSON-ready; weights by their digests."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(
            f"{folder}: expected safetensors weights, found none. Choose a captioner that has them."
        )
    return {
        "source": "captioner",
        "weights": [weights_digest(path, cache) for path in weights],
        "prompt": options.prompt,
        "max_new_tokens": options.max_new_tokens,
        "rendering": RENDERING_VERSION,
    }


class Captioner:
    """A loaded captioning model."""

    def __init__(self, folder: Path, options: DescriptionsConfig, device: str) -> None:
        from transformers import pipeline

        self._options = options
        try:
            self._pipeline: Any = pipeline(
                "image-text-to-text",
                model=str(folder),
                device=device,
                dtype="float32",
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{folder}: expected an image-text-to-text model, found: {error}"
            ) from error
        self._chat = getattr(self._pipeline.processor, "chat_template", None) is not None

    def __call__(self, pictures: Sequence[NDArray[Any]], spec: ModalitySpec) -> list[str]:
        """One caption a stored picture, white space collapsed."""
        return [" ".join(self._caption(render(picture, spec)).split()) for picture in pictures]

    def _caption(self, image: Image.Image) -> str:
        options: dict[str, Any] = {
            "return_full_text": False,
            "generate_kwargs": {
                "do_sample": False,
                "num_beams": 1,
                "max_new_tokens": self._options.max_new_tokens,
            },
        }
        if self._chat:
            question = [
                {"type": "image", "image": image},
                {"type": "text", "text": self._options.prompt},
            ]
            found = self._pipeline(text=[{"role": "user", "content": question}], **options)
        else:
            found = self._pipeline(images=[image], text=[self._options.prompt], **options)
            found = found[0] if isinstance(found[0], list) else found
        return str(found[0]["generated_text"])


def render(picture: NDArray[Any], spec: ModalitySpec) -> Image.Image:
    """A stored picture as 8-bit RGB: the [0, 1] values that the student sees, times 255."""
    unit = to_unit_range(picture, spec)
    grey_or_rgb = np.round(unit * 255).astype(np.uint8)
    return Image.fromarray(grey_or_rgb).convert("RGB")
