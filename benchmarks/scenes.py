"""How fast synthetic scenes are rendered on one core: `python benchmarks/scenes.py [num_scenes]`.

Prints, per picture size, scenes a second by the wall clock and by processor time (the second is what an
otherwise idle core gives), and the slowest condition. The ray cast of two poses is more than half of it;
below about 200 px it is bound by the number of primitives, above by the number of pixels. Half a minute.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

from pipeline.datasets.synthetic import render_scene

SIZES_PX = (128, 256)


def measure(size_px: int, num_scenes: int) -> str:
    """One row of the table."""
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
    """Print the table for the sizes of `SIZES_PX`."""
    num_scenes = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("size_px  scenes/s wall  scenes/s processor   slowest condition")
    for size_px in SIZES_PX:
        print(measure(size_px, num_scenes))


if __name__ == "__main__":
    main()
