"""What full-size teachers cost, of random weights.

    python -m benchmarks.teachers [--count N] [--device cpu]           families beside each other
    python -m benchmarks.teachers --dtypes float32 bfloat16            one tower in several arithmetics

Families: a LanguageBind ViT-L/14 image tower, a CLIP ViT-B/32 and a DINOv2 ViT-S/14, written in each
library's own form and opened as `teacher.name` would be. Times preprocessing and encoding of random
640 x 480 images, pooled and with dense outputs, on one thread. Seconds are the processor's, so that other
work on the machine counts little; on a GPU they are the clock's.

Arithmetics: a ViT-L/14 depth checkpoint (LoRA, 1.7 GB, LanguageBind's layout), loaded strictly in one
process per dtype. Prints seconds to load, images a second, peak memory, and the deviation of the
embeddings from the first dtype's. bfloat16 is slow on processors without bf16 instructions.

A few minutes on one core each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from flows.planning.flops import flops_per_image, num_tokens
from teacher.checkpoints.hub_config import parse_config
from teacher.contract import LoadedTower
from teacher.open import open_teacher
from teacher.towers.text_tower import expected_text_tensors
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


TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "eos_token_id": 2,
    "projection_dim": 512,
}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 512,
    "add_time_attn": False,
    "num_frames": 1,
    "lora_r": 2,
    "lora_alpha": 16,
    "max_depth": 10,
}
HUB_CONFIG = {
    "architectures": ["CLIPModel"],
    "model_type": "LanguageBindDepth",
    "projection_dim": 768,
    "logit_scale_init_value": 2.6592,
    "torch_dtype": "float32",
    "text_config": TEXT,
    "vision_config": VISION,
}
"""The fields of a released config.json that matter."""
CHILD = """
import json, resource, sys, time, torch
from safetensors.torch import save_file
from teacher.towers.vision_tower import load_tower
folder, dtype, device, count = sys.argv[1:4] + [int(sys.argv[4])]
started = time.perf_counter()
tower = load_tower(folder, "depth", dtype=dtype, device=device)
loaded = time.perf_counter() - started
pixels = torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
if device == "cuda":
    tower.encode(pixels[:1])
    torch.cuda.synchronize()
started = time.perf_counter()
output = tower.encode(pixels)
embedding = output.embedding.cpu()
seconds = time.perf_counter() - started
save_file({"embedding": embedding}, f"{folder}/{dtype}.out")
memory = (torch.cuda.max_memory_allocated() if device == "cuda"
          else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps({"dtype": dtype, "load_s": loaded, "images_per_s": count / seconds,
                  "peak_bytes": memory}))
"""


def write_depth_tower(folder: Path) -> int:
    """A random full-size depth tower with unmerged LoRA; returns the bytes of its weights file."""
    (folder / "config.json").write_text(json.dumps(HUB_CONFIG))
    config = parse_config(HUB_CONFIG, "benchmark")
    with torch.device("meta"):
        shapes = {**VisionNetwork(layout_of(config, {}, "benchmark")).state_dict()}
    shapes |= expected_text_tensors(config)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, meta in shapes.items():
        # Weights of about the scale of trained ones, so that half precision is not flattered.
        scale = max(meta.shape[-1], 1) ** -0.5 if meta.ndim > 1 else 0.02
        tensor = torch.empty(meta.shape).normal_(0.0, scale, generator=generator)
        if name.endswith("norm.weight") or ("norm" in name and name.endswith(".weight")):
            tensor += 1.0
        stem = name.replace("vision_model.encoder.", "vision_model.encoder.base_model.model.")
        state[stem] = tensor
        if ".self_attn." in stem and "vision" in stem and stem.endswith(".weight"):
            for side, shape in (("A", (2, 1024)), ("B", (1024, 2))):
                pair = stem.replace(".weight", f".lora_{side}.default.weight")
                state[pair] = torch.empty(shape).normal_(0.0, 0.01, generator=generator)
    save_file(state, folder / "model.safetensors")
    return (folder / "model.safetensors").stat().st_size


def measure(folder: Path, dtype: str, device: str, count: int) -> dict[str, float]:
    """Load and encode in a fresh process."""
    command = [sys.executable, "-c", CHILD, str(folder), dtype, device, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout)
    return row


def compare_arithmetic(dtypes: list[str], device: str, count: int) -> None:
    """Measure a ViT-L/14 depth tower in every dtype and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"checkpoint: {write_depth_tower(folder) / 1e9:.2f} GB")
        for dtype in dtypes:
            row = measure(folder, dtype, device, count)
            rows = load_file(folder / f"{dtype}.out")["embedding"]
            first = load_file(folder / f"{dtypes[0]}.out")["embedding"]
            print(
                f"{dtype:9} load {row['load_s']:5.1f} s  {row['images_per_s']:8.2f} images/s  "
                f"peak {row['peak_bytes'] / 1e9:5.2f} GB  least cosine to {dtypes[0]} "
                f"{float((rows * first).sum(-1).min()):.6f}  max deviation "
                f"{float((rows - first).abs().max()):.1e}"
            )


def compare_families(device: str, count: int, batch_size: int) -> None:
    """Write, open and time a teacher of each family; print a row for each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng([0])
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(count)]
    for name, write in TEACHERS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            tower = open_teacher(folder).tower("image")
            started = time.perf_counter()
            loaded = tower.load("float32", device)
            load_s = time.perf_counter() - started
            pooled, dense = (rate(loaded, images, patch, batch_size) for patch in (False, True))
        flops = flops_per_image(tower, patch=False) or 0
        print(
            f"{name:22} {num_tokens(tower)} tokens  {flops / 1e9:6.1f} GFLOP  load {load_s:5.1f} s  "
            f"{pooled:7.2f} images/s pooled  {dense:7.2f} with patches",
            flush=True,
        )


def main() -> None:
    """Compare families, or arithmetics if dtypes are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", help="float32, bfloat16, float16")
    parser.add_argument("--count", type=int, default=8, help="images encoded")
    parser.add_argument("--batch-size", type=int, default=4, help="of families")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    if arguments.dtypes:
        compare_arithmetic(arguments.dtypes, arguments.device, arguments.count)
    else:
        compare_families(arguments.device, arguments.count, arguments.batch_size)


if __name__ == "__main__":
    main()
