"""The two commands of `python -m teacher.tiny`.

    python -m teacher.tiny train --out DIR [--minutes 35] [--scenes 4000] [--cache DIR]
    python -m teacher.tiny score DIR [--scenes 400]

`train` writes DIR/LanguageBind_Image, DIR/LanguageBind_Depth, DIR/train_log.jsonl and, last,
DIR/provenance.json with seeds, versions, digests and scores. The seeds determine the result unless
the time limit ends training early; the provenance records the number of steps.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

TRAIN_SEED = 9001
HELD_OUT_SEED = 9101
SIZE_PX = 128
"""Side of a rendered scene, as in the demo; the towers' input is 64 pixels."""
TEXT_SHARE = 0.1
"""Fraction of the time limit for the text tower."""
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")

MinutesOption = Annotated[float, typer.Option(min=0.01, help="Time limit of training.")]
CacheOption = Annotated[Path | None, typer.Option(help="Keep rendered scenes here.")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to render.")] = 4000,
    steps: Annotated[int, typer.Option(min=1, help="Vision steps, at most.")] = 4000,
    text_steps: Annotated[int, typer.Option(min=1, help="Text steps, at most.")] = 400,
    batch: Annotated[int, typer.Option(min=2, help="Crops a step.")] = 48,
    minutes: MinutesOption = 35.0,
    held_out: Annotated[int, typer.Option(min=1, help="Scenes to score on.")] = 400,
    seed: int = TRAIN_SEED,
    cache: CacheOption = None,
) -> None:
    """Render scenes, train the towers, write and score them."""
    settings = {"scenes": scenes, "steps": steps, "text_steps": text_steps, "batch": batch}
    with tempfile.TemporaryDirectory() as scratch:
        run_training(
            out, cache or Path(scratch), {**settings, "minutes": minutes, "seed": seed}, held_out
        )


@app.command()
def score(
    directory: Path,
    scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes.")] = 400,
    cache: CacheOption = None,
    record: Annotated[bool, typer.Option(help="Replace the scores in provenance.json.")] = False,
) -> None:
    """Score a directory that `train` wrote on held-out scenes; prints JSON."""
    from pipeline.storage.files import read_json, write_json

    with tempfile.TemporaryDirectory() as scratch:
        scores = held_out_scores(directory, cache or Path(scratch), scenes)
    print(json.dumps(scores, indent=2))
    if record:
        path = directory / "provenance.json"
        write_json(path, {**read_json(path), "scores": scores})


def run_training(out: Path, cache: Path, settings: dict[str, Any], held_out: int) -> None:
    """Train with the given settings and write everything under `out`, provenance last."""
    from teacher.tiny.cache import render_cache
    from teacher.tiny.layout import TOWERS, save_tower
    from teacher.tiny.progress import Phase
    from teacher.tiny.text_training import train_text
    from teacher.tiny.vision_training import train_vision

    started = time.monotonic()
    seed, minutes = settings["seed"], settings["minutes"]
    rendered = render_cache(cache / "train", seed, settings["scenes"], SIZE_PX)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "train_log.jsonl"
    log.unlink(missing_ok=True)
    text_phase = Phase("text", settings["text_steps"], TEXT_SHARE * minutes, log)
    text, tokenizer = train_text(rendered, text_phase, seed)
    left = minutes - text_phase.elapsed_s / 60.0
    phases = {name: Phase(name, settings["steps"], left, log) for name in TOWERS}
    vision = train_vision(cache / "train", text, tokenizer, phases, seed, settings["batch"])
    taken: dict[str, Any] = {"text_steps": text_phase.step}
    for name, (network, num_steps) in vision.items():
        save_tower(out, name, network, text, tokenizer)
        taken[f"{name}_steps"] = num_steps
    wall_s = round(time.monotonic() - started, 1)
    write_provenance(out, settings, {**taken, "wall_s": wall_s}, cache, held_out)


def held_out_scores(directory: Path, cache: Path, num: int) -> dict[str, Any]:
    """Scores on `num` scenes of a seed that is not used in training."""
    from pipeline.datasets.synthetic.render import RENDERER_VERSION
    from teacher.tiny.cache import render_cache
    from teacher.tiny.score import score_directory

    scenes = render_cache(cache / "held_out", HELD_OUT_SEED, num, SIZE_PX)
    return {"renderer_version": RENDERER_VERSION, **score_directory(directory, scenes)}


def write_provenance(
    out: Path, settings: dict[str, Any], taken: dict[str, Any], cache: Path, held_out: int
) -> None:
    """Write provenance.json: the command that made `out`, its scores, and the digest of every file."""
    from pipeline import VERSION
    from pipeline.datasets.synthetic.render import RENDERER_VERSION
    from pipeline.storage.files import sha256_file, write_json

    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.parent != out)
    record = {
        "command": f"python -m teacher.tiny train --out DIR {flags}",
        "settings": settings,
        "taken": taken,
        "renderer_version": RENDERER_VERSION,
        "size_px": SIZE_PX,
        "held_out_seed": HELD_OUT_SEED,
        "versions": {"any2seg": VERSION, "python": platform.python_version()}
        | {n: version(n) for n in PACKAGES},
        "files": {path.relative_to(out).as_posix(): sha256_file(path) for path in files},
        "scores": held_out_scores(out, cache, held_out),
    }
    write_json(out / "provenance.json", record)


def main() -> None:
    """Entry point of `python -m teacher.tiny`."""
    app()
