"""What a full-size tower costs.

    python -m benchmarks.towers [cpu|cuda] [dtype ...]

Writes a random ViT-L/14 depth checkpoint (LoRA, 1.7 GB, LanguageBind's layout) to a temporary folder,
then, in one process per dtype, loads it strictly and encodes images. Prints seconds to load, images a
second, peak memory, and the deviation of the embeddings from float32. A few minutes on one core;
bfloat16 is slow on processors without bf16 instructions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from teacher.checkpoints.hub_config import parse_config
from teacher.towers.text_tower import expected_text_tensors
from teacher.towers.vision_network import VisionNetwork, layout_of

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


def write_checkpoint(folder: Path) -> int:
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


def main() -> None:
    """Measure every dtype asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("device", nargs="?", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--count", type=int, default=4, help="images encoded")
    arguments = parser.parse_args()
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"checkpoint: {write_checkpoint(folder) / 1e9:.2f} GB")
        for dtype in arguments.dtypes:
            row = measure(folder, dtype, arguments.device, arguments.count)
            rows = load_file(folder / f"{dtype}.out")["embedding"]
            first = load_file(folder / f"{arguments.dtypes[0]}.out")["embedding"]
            print(
                f"{dtype:9} load {row['load_s']:5.1f} s  {row['images_per_s']:8.2f} images/s  "
                f"peak {row['peak_bytes'] / 1e9:5.2f} GB  least cosine to {arguments.dtypes[0]} "
                f"{float((rows * first).sum(-1).min()):.6f}  max deviation "
                f"{float((rows - first).abs().max()):.1e}"
            )


if __name__ == "__main__":
    main()
