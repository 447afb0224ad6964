"""What rendering, preparing and decoding samples costs.

    python -m benchmarks.prepare [size_px] [num_scenes]

Four tables, on one core, in processor time (which other processes disturb least):

1. encodings of each kind of image: ms to encode and decode, bytes;
2. `prepare` of a dataset folder in DELIVER's layout: samples, images and MB a second, all included;
3. reading training samples: from the prepared shards, and naively, one source file after the other;
4. rendering of scenes, per image size: scenes a second by the wall clock and by processor time, and the
   slowest condition. The ray cast of two poses is more than half of it; below about 200 px it is bound
   by the number of primitives, above by the number of pixels.

A sample is RGB, 16-bit depth, events, LiDAR and a label of rendered scenes, whose noise compresses less than
most photographs. Everything is written to a temporary folder. Two minutes at 512 px.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.lz4 import LZ4
from numcodecs.zstd import Zstd
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.config import Config
from pipeline.datasets.deliver import DeliverAdapter, DeliverOptions
from pipeline.datasets.synthetic import render_scene
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_reader import SampleReader, list_samples
from pipeline.workspace import Workspace
from tests.support.deliver_layout import write_deliver

Array = NDArray[np.generic]
MODALITIES = {"rgb": {}, "depth": {}, "event": {}, "lidar": {"kind": "lidar_image"}}
RENDERED_PX, NUM_RENDERED = (128, 256), 200


def seconds_of(action: Callable[[], object], repeats: int = 5) -> float:
    """Least processor time of one call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def pillow(image_format: str, **options: object) -> tuple[Callable, Callable]:
    """(encode, decode) through Pillow."""

    def encode(array: Array) -> bytes:
        file = BytesIO()
        Image.fromarray(array).save(file, image_format, **options)
        return file.getvalue()

    return encode, lambda data: np.array(Image.open(BytesIO(data)))


def packed(codec: object) -> tuple[Callable, Callable]:
    """(encode, decode) of a .npy in a codec of numcodecs."""

    def encode(array: Array) -> bytes:
        file = BytesIO()
        np.save(file, array)
        return codec.encode(file.getvalue())

    return encode, lambda data: np.load(BytesIO(codec.decode(data)))


ENCODINGS = {
    "png 1": pillow("PNG", compress_level=1),
    "png 3": pillow("PNG", compress_level=3),
    "png 9": pillow("PNG", compress_level=9),
    "npy lz4": packed(LZ4()),
    "npy zstd 1": packed(Zstd(level=1, checksum=True)),
    "npy zstd 3": packed(Zstd(level=3, checksum=True)),
    "npy zstd 9": packed(Zstd(level=9, checksum=True)),
    "npy blosc zstd 3": packed(Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE)),
}
LOSSY = {"jpeg 95 (rgb only)": pillow("JPEG", quality=95)}
LOSSLESS_8_BIT = {"webp lossless (8-bit)": pillow("WEBP", lossless=True, method=0)}


def encodings(size_px: int) -> None:
    """Table 1."""
    scene = render_scene(0, 3, size_px)
    images = {
        "rgb": scene.rgb,
        "depth16": scene.depth,
        "lidar16": scene.lidar,
        "event": scene.event,
        "label": scene.label,
    }
    print(f"{size_px} px, ms to encode / ms to decode / KB")
    print(f"{'':22s}" + "".join(f"{name:>24s}" for name in images))
    for name, codec in {**ENCODINGS, **LOSSLESS_8_BIT, **LOSSY}.items():
        cells = [_cell(name, kind, array, *codec) for kind, array in images.items()]
        print(f"{name:22s}" + "".join(f"{cell:>24s}" for cell in cells))


def _cell(name: str, kind: str, array: Array, encode: Callable, decode: Callable) -> str:
    if name in LOSSY and kind != "rgb":
        return "-"
    if name in LOSSLESS_8_BIT and (array.dtype != np.uint8 or array.ndim != 3):
        return "-"
    data = encode(array)
    if name not in LOSSY:
        assert np.array_equal(decode(data), array), (name, kind)
    spent = [1000 * seconds_of(lambda: encode(array)), 1000 * seconds_of(lambda: decode(data))]
    return f"{spent[0]:8.2f} /{spent[1]:6.2f} /{len(data) / 1000:6.0f}"


def throughput(size_px: int, num_scenes: int) -> None:
    """Tables 2 and 3."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "DELIVER"
        write_deliver(root, 0, {"train": num_scenes}, size_px)
        config = Config.model_validate(
            {
                "name": "bench",
                "workspace": Path(folder) / "workspace",
                "dataset": {"adapter": "deliver", "root": root},
                "modalities": MODALITIES,
                "prepare": {"workers": 1},
            }
        )
        start = time.process_time()
        prepare(config, Workspace.of(config), progress=False)
        spent = time.process_time() - start
        manifest = Manifest.load(Workspace.of(config).dataset(config))
        raw_mb = _raw_mb(config, manifest)
        print(f"\n{num_scenes} samples of {size_px} px, {raw_mb / num_scenes:.2f} MB decoded each")
        print(f"{'':34s}samples/s    images/s   MB/s (decoded)")
        _line("prepare", spent, num_scenes, raw_mb)
        _line("naive reader, file by file", _naive(config), num_scenes, raw_mb)
        _line("shards, as training reads them", _shards(config, manifest), num_scenes, raw_mb)


def _line(name: str, spent: float, num_samples: int, mb: float) -> None:
    num_images = num_samples * (len(MODALITIES) + 1)
    print(f"{name:32s}{num_samples / spent:11.1f}{num_images / spent:12.1f}{mb / spent:9.1f}")


def _raw_mb(config: Config, manifest: Manifest) -> float:
    pixels = sum(row["height"] * row["width"] for row in manifest.rows("train"))
    per_pixel = [s.channels * np.dtype(s.dtype).itemsize for s in config.specs().values()]
    return pixels * (sum(per_pixel) + 1) / 1e6


def _shards(config: Config, manifest: Manifest) -> float:
    refs = list_samples(manifest, "train", tuple(config.specs()))
    reader = SampleReader(config.specs())
    reader.read(refs[0])  # verifies the shard once, as training does
    return seconds_of(lambda: [reader.read(ref) for ref in refs], 2)


def _naive(config: Config) -> float:
    """Open each source image with Pillow, as most loaders do; no checks, nothing decoded twice."""
    options = DeliverOptions.model_validate({"root": config.dataset.model_dump()["root"]})
    listed = DeliverAdapter(options, config.specs()).samples("train")
    files = [[*sample.files.values(), sample.label] for sample in listed]

    def read() -> None:
        for paths in files:
            for path in paths:
                np.array(Image.open(path))

    return seconds_of(read, 2)


def rendering() -> None:
    """Table 4."""
    print("\nsize_px  scenes/s wall  scenes/s processor   slowest condition")
    for size_px in RENDERED_PX:
        print(_rendered(size_px, NUM_RENDERED))


def _rendered(size_px: int, num_scenes: int) -> str:
    render_scene(1, 0, size_px)
    by_condition: dict[str, list[float]] = defaultdict(list)
    wall, processor = time.perf_counter(), time.process_time()
    for index in range(num_scenes):
        start = time.process_time()
        scene = render_scene(0, index, size_px)
        by_condition[scene.condition].append(time.process_time() - start)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    means = {name: sum(times) / len(times) for name, times in by_condition.items()}
    slowest = max(means, key=lambda name: means[name])
    return (
        f"{size_px:7d}  {num_scenes / wall:13.1f}  {num_scenes / processor:18.1f}"
        f"   {slowest} ({1000 * means[slowest]:.0f} ms)"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size_px", nargs="?", type=int, default=512, help="default: 512")
    parser.add_argument("num_scenes", nargs="?", type=int, default=24, help="default: 24")
    options = parser.parse_args()
    encodings(options.size_px)
    throughput(options.size_px, options.num_scenes)
    rendering()


if __name__ == "__main__":
    main()
