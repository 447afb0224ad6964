"""What teachers cost beside each other: `python benchmarks/teachers.py [--count N] [--device cpu]`.

Writes full-size checkpoints of random weights, in each library's own form, to a temporary folder: a
LanguageBind ViT-L/14 image tower, a CLIP ViT-B/32 and a DINOv2 ViT-S/14. Opens them as `teacher.name`
would and times preprocessing and encoding of random 640 x 480 images, pooled and with dense outputs, on
one thread. Images a second do not depend on the weights. Seconds are the processor's, so that other
work on the machine counts little; on a GPU they are the clock's. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from flows.planning.flops import flops_per_image, num_tokens
from teacher.checkpoints.hub_config import parse_config
from teacher.contract import LoadedTower
from teacher.open import open_teacher
from teacher.towers.vision_network import VisionNetwork, layout_of

LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "lora_r": 0,
}
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}


def write_language_bind(folder: Path) -> None:
    """A ViT-L/14 image tower."""
    hub = {"model_type": "LanguageBindImage", "projection_dim": 768, "vision_config": LARGE}
    (folder / "config.json").write_text(json.dumps(hub))
    network = VisionNetwork(layout_of(parse_config(hub, "benchmark"), {}, "benchmark"))
    save_file(network.state_dict(), folder / "model.safetensors")


def write_clip(folder: Path) -> None:
    """A ViT-B/32 with its text tower, of the default sizes of transformers."""
    transformers.CLIPModel(transformers.CLIPConfig()).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)


def write_dino(folder: Path) -> None:
    """A ViT-S/14 for 518 pixels, whose processor gives 224."""
    config = transformers.Dinov2Config(**SMALL, image_size=518, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(folder)
    transformers.BitImageProcessor(size={"shortest_edge": 256}).save_pretrained(folder)


TEACHERS = {
    "LanguageBind ViT-L/14": write_language_bind,
    "CLIP ViT-B/32": write_clip,
    "DINOv2 ViT-S/14": write_dino,
}


def rate(tower: LoadedTower, images: list[np.ndarray], patch: bool, batch_size: int) -> float:
    """Images a second, from arrays to numbers, after a warm-up of one image."""
    clock = time.process_time if tower.device.type == "cpu" else time.perf_counter
    tower.encode(tower.preprocess(images[:1]), patch=patch)
    started = clock()
    for start in range(0, len(images), batch_size):
        output = tower.encode(tower.preprocess(images[start : start + batch_size]), patch=patch)
        output.embedding.cpu()
    return len(images) / (clock() - started)


def main() -> None:
    """Write, open and time each teacher; print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=8, help="images encoded")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng([0])
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(arguments.count)]
    for name, write in TEACHERS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            tower = open_teacher(folder).tower("image")
            started = time.perf_counter()
            loaded = tower.load("float32", arguments.device)
            load_s = time.perf_counter() - started
            pooled, dense = (
                rate(loaded, images, patch, arguments.batch_size) for patch in (False, True)
            )
        flops = flops_per_image(tower, patch=False) or 0
        print(
            f"{name:22} {num_tokens(tower)} tokens  {flops / 1e9:6.1f} GFLOP  load {load_s:5.1f} s  "
            f"{pooled:7.2f} images/s pooled  {dense:7.2f} with patches",
            flush=True,
        )


if __name__ == "__main__":
    main()
