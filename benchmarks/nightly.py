"""Three scheduled runs on growing data, in a few minutes.

    python -m benchmarks.nightly [--keep FOLDER]

A real server and `any2seg serve --interval` on loopback. The first run does everything, new samples
arrive before the second, nothing arrives before the third. Prints for each run how it ended, how long
it took, and which shards, teacher units and students it made; fails if a run redid anything. With
`--keep` the folder stays, and the server runs until Enter is pressed (to look at its pages).
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from benchmarks.served import (
    committed,
    runs,
    serve,
    server,
    wait_for,
    write_config,
    write_scenes,
)

INTERVAL_S = 60
GROWTH = (range(40), range(40, 48), range(0))
"""Training samples that arrive before each run."""


def made(before: dict[Path, int], after: dict[Path, int]) -> str:
    """Counts of new artefacts by kind. Raises `AssertionError` if an old one was written again."""
    assert all(after[path] == when for path, when in before.items()), "written again"
    new = [path.parts for path in after.keys() - before.keys()]
    kinds = {"shards": "shards", "teacher units": "ledger", "students": "runs"}
    return ", ".join(f"{sum(folder in p for p in new)} {kind}" for kind, folder in kinds.items())


def main() -> None:
    """Run three times and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder to work in and to keep")
    keep = parser.parse_args().keep
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        write_scenes(folder / "tree", "val", range(1000, 1008))
        write_scenes(folder / "tree", "train", GROWTH[0])
        config = write_config(folder, steps=20)
        url = stack.enter_context(server(folder))
        runner = serve(url, config, INTERVAL_S)
        stack.callback(lambda: (runner.terminate(), runner.wait()))
        before: dict[Path, int] = {}
        for number, arriving in enumerate(GROWTH):
            if number:
                write_scenes(folder / "tree", "train", arriving)
            ended = wait_for(
                lambda want=number + 1: (
                    len(finished := runs(url, "COMPLETED", "FAILED")) >= want and finished
                ),
                900,
            )[number]
            after = committed(folder / "workspace")
            print(
                f"run {number + 1}: {len(arriving):2} new samples, {ended['state']['name']!r}, "
                f"{ended['total_run_time']:.1f} s, made {made(before, after)}. "
                f"{ended['state']['message'] or ''}",
                flush=True,
            )
            before = after
        if keep:
            print(f"UI: {url.removesuffix('/api')}", flush=True)
            input("Enter ends it.")


if __name__ == "__main__":
    main()
