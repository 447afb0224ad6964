"""Inner chunk sizes of a dense target object.

    python -m benchmarks.chunking [patches] [dim] [rows]

Makes one shard's dense targets (256 rows of 256 patches of 768 float16 numbers by default, 100 MB)
with inner chunks of 1, 4, 16 and 64 rows and of the whole shard, each with its crc32c, and prints:

- encode: ms a row to make the object's bytes;
- extra: bytes that the object has beyond its numbers;
- stream: ms a row to decode all of the object from memory; then with the file's sha256;
- zarr row: ms to read one row through zarr; random rows, mean;
- touched: bytes of the file that one row read touches;
- own row: the same through `pipeline.formats.zarr_rows`, which reads only the form that the store writes.

Processor time in one thread, the least of several goes, since other processes disturb it least; the
file lies in the page cache. Half a minute; 0.5 GB of memory, 0.1 GB of temporary disk.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from pipeline.formats.zarr_rows import ObjectRows

REPEATS = 3
RANDOM_ROWS = 64


def milliseconds(action: Callable[[], object]) -> float:
    """Least processor time of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        times.append(1000 * (time.process_time() - start))
    return min(times)


def new_array(chunks: dict[str, Any], inner_rows: int, shape: tuple[int, ...]) -> Any:
    """An empty array of one object over the dict `chunks`."""
    whole = inner_rows == shape[0]
    return zarr.create_array(
        MemoryStore(chunks),
        shape=shape,
        dtype="float16",
        chunks=(inner_rows, *shape[1:]),
        shards=None if whole else shape,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        fill_value=np.nan,
        config={"write_empty_chunks": True},
    )


def measure(file: Path, inner_rows: int, block: np.ndarray) -> str:
    """One row of the table."""
    chunks: dict[str, Any] = {}
    array = new_array(chunks, inner_rows, block.shape)

    def encode() -> None:
        array[:] = block

    encoding = milliseconds(encode)
    (data,) = (chunks[name].to_bytes() for name in chunks if name.startswith("c/"))
    file.write_bytes(data)
    chunks.update({name: Buffer.from_bytes(data) for name in chunks if name.startswith("c/")})
    streaming = milliseconds(lambda: array[:])
    digest = milliseconds(lambda: hashlib.sha256(file.read_bytes()).hexdigest())
    drawn = np.random.default_rng(0).integers(0, len(block), RANDOM_ROWS).tolist()
    through_zarr = milliseconds(lambda: [array[row] for row in drawn])
    own = "-"
    if inner_rows == 1:
        rows = ObjectRows.open(file, len(block), block.shape[1:], "float16")
        assert all(np.array_equal(rows[row], block[row]) for row in drawn)
        own = f"{milliseconds(lambda: [rows[row] for row in drawn]) / RANDOM_ROWS:.2f}"
    touched = inner_rows * block[0].nbytes
    return (
        f"{inner_rows:10d} {encoding / len(block):11.2f} {len(data) - block.nbytes:9d} "
        f"{streaming / len(block):9.2f} {(streaming + digest) / len(block):10.2f} "
        f"{through_zarr / RANDOM_ROWS:9.2f} {touched / 1e6:10.2f} {own:>9s}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("patches", 256), ("dim", 768), ("rows", 256)):
        parser.add_argument(name, nargs="?", type=int, default=default, help=f"default: {default}")
    options = parser.parse_args()
    patches, dim, num_rows = options.patches, options.dim, options.rows
    block = np.random.default_rng(0).standard_normal((num_rows, patches, dim)).astype(np.float16)
    print(f"{num_rows} rows of ({patches}, {dim}) float16, {block.nbytes / 1e6:.0f} MB; ms a row")
    print("inner rows  encode ms  extra B  stream ms  + sha256   zarr row  touched MB   own row")
    with tempfile.TemporaryDirectory() as folder:
        for inner_rows in (1, 4, 16, 64, num_rows):
            print(measure(Path(folder) / "object", inner_rows, block), flush=True)


if __name__ == "__main__":
    main()
