"""Captions of stored images by any transformers image-text-to-text model.

A model with a chat template is prompted through it; any other continues the prompt's text. Decoding
is greedy, so the same model, image and prompt give the same caption. Only safetensors weights are
read, and no code of a repository is run.
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
from teacher.checkpoints.digest import file_digest

RENDERING_VERSION = 1
"""Increment it when the same stored image starts to be rendered differently."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def find_model(options: DescriptionsConfig) -> Path:
    """The captioning model's folder, fetched from the hub if it is not local. `CheckpointError`."""
    if Path(options.model).is_dir():
        return Path(options.model)
    return fetch_snapshot(options.model, _FILES, "descriptions.model", revision=options.revision)


def captioner_identity(options: DescriptionsConfig, folder: Path, cache: Path) -> dict[str, Any]:
    """Everything that captions depend on, JSON-ready. `CheckpointError` without safetensors weights."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(
            f"{folder}: expected safetensors weights, found none. Choose a captioner that has them."
        )
    return {
        "source": "captioner",
        "weights": [file_digest(path, cache) for path in weights],
        "prompt": options.prompt,
        "max_new_tokens": options.max_new_tokens,
        "rendering": RENDERING_VERSION,
    }


class Captioner:
    """A loaded captioning model. `CheckpointError` if the folder holds none."""

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

    def __call__(self, images: Sequence[NDArray[Any]], spec: ModalitySpec) -> list[str]:
        """One caption per stored image, white space collapsed."""
        return [" ".join(self._caption(render(image, spec)).split()) for image in images]

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
            outputs = self._pipeline(text=[{"role": "user", "content": question}], **options)
        else:
            outputs = self._pipeline(images=[image], text=[self._options.prompt], **options)
            # A list per image in some versions of transformers, a flat list in others.
            outputs = outputs[0] if isinstance(outputs[0], list) else outputs
        return str(outputs[0]["generated_text"])


def render(image: NDArray[Any], spec: ModalitySpec) -> Image.Image:
    """A stored image as 8-bit RGB: the [0, 1] values that the student sees, times 255."""
    unit = to_unit_range(image, spec)
    grey_or_rgb = np.round(unit * 255).astype(np.uint8)
    return Image.fromarray(grey_or_rgb).convert("RGB")
