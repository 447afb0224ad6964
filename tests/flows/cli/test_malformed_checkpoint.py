"""Malformed checkpoints: one line that names the file, exit code 2, from `teacher` and `precompute`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flows.cli.main import main
from pipeline.config.load import dump_config
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from tests.teacher.conftest import make_config, write_pictures, write_source

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = f"{WEIGHTS}.index.json"
NORM = "vision_model.post_layernorm.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 17\n"
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
Change = Callable[[Path], object]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of random towers, and a prepared workspace with one image modality."""
    root = tmp_path_factory.mktemp("malformed")
    write_pictures(root / "pictures")
    config = make_config(root, write_source(root / "towers"))
    config = config.model_copy(update={"modalities": {"rgb": config.modalities["rgb"]}})
    prepare(config, Workspace.of(config), progress=False)
    (root / "c.toml").write_text(dump_config(config))
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A writable image tower."""
    return shutil.copytree(made / "towers" / "LanguageBind_Image", tmp_path / "tower")


class Exploit:
    """What a hostile pickle would carry."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploited"),))  # type: ignore[return-value]


def put(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data)


def without(folder: Path, name: str) -> Path:
    path = folder / name
    path.unlink()
    return path


def state_of(folder: Path) -> State:
    return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}


def tensors(change: Callable[[State], object]) -> Change:
    def rewrite(folder: Path) -> None:
        state = state_of(folder)
        change(state)
        save_file(state, folder / WEIGHTS)

    return rewrite


def cast(dtype: torch.dtype) -> Change:
    return tensors(lambda state: state.update({n: t.to(dtype) for n, t in state.items()}))


def half(name: str) -> Change:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def as_pickle(content: Callable[[State], object]) -> Change:
    """The weights as a pickle of `content(state)`, without safetensors."""

    def rewrite(folder: Path) -> None:
        state = content(state_of(folder))
        (folder / WEIGHTS).unlink()
        torch.save(state, folder / PICKLE)

    return rewrite


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def sharded(folder: Path) -> tuple[dict[str, str], State, State]:
    """Split the weights over two shards; (weight map, first state, second state)."""
    state = state_of(folder)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    parts = [{n: state[n] for n in names[start::2]} for start in (0, 1)]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map, parts[0], parts[1]


def shards(change: Change) -> Change:
    return lambda folder: (sharded(folder), change(folder))


def weight_map(change: Callable[[dict[str, Any]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        names, _, _ = sharded(folder)
        change(names)
        (folder / INDEX).write_text(json.dumps({"weight_map": names}))

    return rewrite


def second_copy(folder: Path) -> None:
    """A tensor of the first shard in the second one too."""
    _, first, second = sharded(folder)
    name = next(iter(first))
    save_file({**second, name: first[name]}, folder / "model-00002-of-00002.safetensors")


def config(**fields: object) -> Change:
    """config.json with fields changed; `vision.x` and `text.x` are those of the sections."""

    def rewrite(folder: Path) -> None:
        path = folder / "config.json"
        raw = json.loads(path.read_text())
        for name, value in fields.items():
            section, _, field = name.rpartition("__")
            place = raw[f"{section}_config"] if section else raw
            if value is ...:
                place.pop(field)
            else:
                place[field] = value
        path.write_text(json.dumps(raw))

    return rewrite


def vocabulary(change: Callable[[dict[str, int]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        path = folder / "tokenizer.json"
        raw = json.loads(path.read_text())
        change(raw["model"]["vocab"])
        path.write_text(json.dumps(raw))

    return rewrite


def pair(vocab: bytes | None, merges: bytes) -> Change:
    """vocab.json (by default the right one) and merges.txt instead of tokenizer.json."""

    def rewrite(folder: Path) -> None:
        words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_bytes(json.dumps(words).encode() if vocab is None else vocab)
        (folder / "merges.txt").write_bytes(merges)

    return rewrite


def as_folder(name: str) -> Change:
    return lambda folder: without(folder, name).mkdir()


def dangling(name: str) -> Change:
    return lambda folder: without(folder, name).symlink_to("../blobs/0123")


def swap(state: State) -> None:
    state[NORM] = state[NORM][:-1].clone()


def one(value: float) -> Change:
    return tensors(lambda state: state[NORM].__setitem__(0, value))


KINDS: dict[str, tuple[Change, str, str]] = {
    # Name: (change, file that the message names, words that say what was found).
    "empty": (put(WEIGHTS, b""), WEIGHTS, "an empty file"),
    "text": (put(WEIGHTS, b"weights go here\n" * 9), WEIGHTS, "a text file"),
    "html": (put(WEIGHTS, HTML), WEIGHTS, "an HTML page"),
    "lfs": (put(WEIGHTS, LFS), WEIGHTS, "Git LFS pointer"),
    "binary": (put(WEIGHTS, bytes(range(256)) * 9), WEIGHTS, "corrupted"),
    "huge-header": (put(WEIGHTS, b"\xff" * 8 + b"{}"), WEIGHTS, "corrupted"),
    "half": (half(WEIGHTS), WEIGHTS, "corrupted file (ValueError: expected"),
    "int8": (cast(torch.int8), WEIGHTS, "expected floating-point numbers, found int8"),
    "int64": (cast(torch.int64), WEIGHTS, "expected floating-point numbers, found int64"),
    "nan": (one(float("nan")), WEIGHTS, f"NaN or infinity in {NORM}"),
    "inf": (one(float("-inf")), WEIGHTS, f"NaN or infinity in {NORM}"),
    "shape": (tensors(swap), WEIGHTS, f"{NORM}: expected (16,), found (15,)"),
    "missing": (tensors(lambda s: s.pop(NORM)), WEIGHTS, f"missing {NORM}"),
    "extra": (tensors(lambda s: s.update(x=torch.ones(1))), WEIGHTS, "unexpected x"),
    "no-tensor": (tensors(lambda s: s.clear()), WEIGHTS, "found no tensor"),
    "folder": (as_folder(WEIGHTS), WEIGHTS, "found a folder"),
    "dangling": (dangling(WEIGHTS), WEIGHTS, "a link to ../blobs/0123, which does not exist"),
    "none": (lambda f: without(f, WEIGHTS), "tower", "found config.json, tokenizer.json"),
    "zip-as-safetensors": (
        both(as_pickle(lambda s: s), lambda f: (f / PICKLE).rename(f / WEIGHTS)),
        WEIGHTS,
        "a zip archive, torch.save's format",
    ),
    "safetensors-as-zip": (
        lambda f: (f / WEIGHTS).rename(f / PICKLE),
        PICKLE,
        "a safetensors file",
    ),
    "list": (as_pickle(lambda s: list(s.values())), PICKLE, "found a list"),
    "nested": (as_pickle(lambda s: {"state_dict": s}), PICKLE, "a dict under 'state_dict'"),
    "epoch": (as_pickle(lambda s: {**s, "epoch": 3}), PICKLE, "a int under 'epoch'"),
    "code": (
        as_pickle(lambda s: {**s, "x": Exploit()}),
        PICKLE,
        "run code when read (getattr",
    ),
    "pickle": (
        both(lambda f: without(f, WEIGHTS), put(PICKLE, pickle.dumps(Exploit(), protocol=2))),
        PICKLE,
        "more than tensors",
    ),
    "zip-half": (both(as_pickle(lambda s: s), half(PICKLE)), PICKLE, "that is cut short"),
    "zip-text": (
        both(lambda f: without(f, WEIGHTS), put(PICKLE, b"hello\n")),
        PICKLE,
        "a text file",
    ),
    "zip-int8": (as_pickle(lambda s: {n: t.to(torch.int8) for n, t in s.items()}), PICKLE, "int8"),
    "sparse": (as_pickle(lambda s: {NORM: s[NORM].to_sparse()}), PICKLE, "a sparse"),
    "shard-missing": (
        shards(lambda f: without(f, "model-00002-of-00002.safetensors")),
        "model-00002-of-00002.safetensors",
        "found no such file",
    ),
    "shard-extra": (
        shards(put("model-00003-of-00003.safetensors", b"x")),
        "model-00003-of-00003.safetensors",
        "found a shard that it does not name",
    ),
    "shard-copy": (second_copy, "model-00002-of-00002.safetensors", "in model-00001-of-00002"),
    "shard-half": (
        shards(half("model-00001-of-00002.safetensors")),
        "model-00001-of-00002.safetensors",
        "corrupted file",
    ),
    "index-empty": (shards(put(INDEX, b"")), INDEX, "an empty file"),
    "index-text": (shards(put(INDEX, b"hello")), INDEX, "found no JSON"),
    "index-list": (shards(put(INDEX, b"[]")), INDEX, "found a list"),
    "index-without-map": (shards(put(INDEX, b"{}")), INDEX, "expected a weight_map"),
    "index-twice": (
        shards(put(INDEX, b'{"weight_map": {"a": "b", "a": "b"}}')),
        INDEX,
        "tensor a is listed twice",
    ),
    "index-leads-out": (
        weight_map(lambda m: m.update({NORM: "../model-1.safetensors"})),
        INDEX,
        "found '../model-1.safetensors'",
    ),
    "index-number": (weight_map(lambda m: m.update({NORM: 3})), INDEX, "found '3'"),
    "index-forgets": (weight_map(lambda m: m.pop(NORM)), INDEX, "expected it in no shard"),
    "index-invents": (
        weight_map(lambda m: m.update(x="model-00001-of-00002.safetensors")),
        INDEX,
        "found it in none",
    ),
    "config-empty": (put("config.json", b""), "config.json", "an empty file"),
    "config-text": (put("config.json", b"hello"), "config.json", "found no JSON"),
    "config-html": (put("config.json", HTML), "config.json", "an HTML page"),
    "config-lfs": (put("config.json", LFS), "config.json", "Git LFS pointer"),
    "config-binary": (put("config.json", b"\xff\xfe\x00"), "config.json", "found no JSON"),
    "config-half": (half("config.json"), "config.json", "found no JSON"),
    "config-list": (put("config.json", b"[1]"), "config.json", "found a list"),
    "config-deep": (put("config.json", b"[" * 100_000), "config.json", "nested too deep"),
    "config-folder": (as_folder("config.json"), "config.json", "found a folder"),
    "config-dangling": (dangling("config.json"), "config.json", "which does not exist"),
    "config-digits": (
        put("config.json", b'{"projection_dim": ' + b"9" * 5000 + b"}"),
        "config.json",
        "found no JSON",
    ),
    "type-missing": (config(model_type=...), "config.json", "found none"),
    "type-other": (config(model_type="bert"), "config.json", "found 'bert'"),
    "type-number": (config(model_type=7), "config.json", "found 7"),
    "section-list": (config(vision_config=[1]), "config.json", "expected a JSON object, found [1]"),
    "dict-text": (config(text_config_dict="x"), "config.json", "text_config_dict: expected a JSON"),
    "width-text": (
        config(vision__hidden_size="16"),
        "config.json",
        "hidden_size: expected a whole",
    ),
    "width-null": (config(vision__hidden_size=None), "config.json", "found none"),
    "width-missing": (config(vision__hidden_size=...), WEIGHTS, "tensors do not match config.json"),
    "heads-zero": (config(vision__num_attention_heads=0), "config.json", "found 0"),
    "heads-odd": (config(text__num_attention_heads=3), WEIGHTS, "divides, found 16 and 3"),
    "layers-negative": (config(text__num_hidden_layers=-1), "config.json", "found -1"),
    "layers-many": (config(vision__num_hidden_layers=10**9), "config.json", "found 1000000000"),
    "joint-huge": (config(projection_dim=10**40), "config.json", "more than 64 bits"),
    "joint-other": (config(projection_dim=13), WEIGHTS, "expected (13, 16), found (12, 16)"),
    "size-pair": (config(vision__image_size=[32, "x"]), "config.json", "found 'x'"),
    "size-object": (config(vision__image_size={}), "config.json", "found {}"),
    "size-below-patch": (config(vision__image_size=8), "config.json", "at least one patch"),
    "eps-inf": (config(vision__layer_norm_eps=float("inf")), "config.json", "a finite number"),
    "act-unknown": (config(vision__hidden_act="tanhh"), "config.json", "found 'tanhh'"),
    "act-list": (config(text__hidden_act=[]), "config.json", "found []"),
    "scale-text": (config(logit_scale_init_value="1"), "config.json", "found '1'"),
    "tokenizer-empty": (put("tokenizer.json", b""), "tokenizer.json", "an empty file"),
    "tokenizer-text": (put("tokenizer.json", b"hello"), "tokenizer.json", "found no JSON"),
    "tokenizer-html": (put("tokenizer.json", HTML), "tokenizer.json", "an HTML page"),
    "tokenizer-lfs": (put("tokenizer.json", LFS), "tokenizer.json", "Git LFS pointer"),
    "tokenizer-other": (put("tokenizer.json", b'{"model": 3}'), "tokenizer.json", "found a int"),
    "tokenizer-folder": (as_folder("tokenizer.json"), "tokenizer.json", "found a folder"),
    "tokenizer-dangling": (dangling("tokenizer.json"), "tokenizer.json", "which does not exist"),
    "vocab-short": (vocabulary(lambda v: v.pop("a")), "tokenizer.json", "each id from 0 to"),
    "vocab-text-id": (vocabulary(lambda v: v.update(a="x")), "tokenizer.json", "each id from 0 to"),
    "vocab-longer": (
        vocabulary(lambda v: v.update({"<|endoftext|>": len(v), "new": v["<|endoftext|>"]})),
        "tokenizer.json",
        "tokens as in config.json",
    ),
    "vocab-list": (pair(b"[]", b"a b\n"), "vocab.json", "found a list"),
    "merges-empty": (pair(None, b""), "merges.txt", "an empty file"),
    "merges-text": (pair(None, b"not merges at all\n"), "merges.txt", "found 'not merges at all'"),
    "merges-binary": (
        pair(None, b"\xff\xfe\xfa"),
        "merges.txt",
        "unusable ones: UnicodeDecodeError",
    ),
    "merges-unknown": (pair(None, b"zzz yyy\n"), "merges.txt", "found unusable ones"),
    "merges-missing": (
        both(pair(None, b"a b\n"), lambda f: without(f, "merges.txt")),
        "tower",
        "or vocab.json and merges.txt; found vocab.json",
    ),
}


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, list[str]]:
    """(exit code, lines of stderr) of the command."""
    monkeypatch.setattr(sys, "argv", ["any2seg", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_a_malformed_checkpoint_is_one_line(
    made: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    change, file, words = KINDS[kind]
    change(folder)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    code, [line] = call(monkeypatch, capsys, "teacher", folder)
    assert code == 2
    assert line.startswith("error: ")
    assert str(folder if file == folder.name else folder / file) in line
    assert words in line
    assert line.endswith(".")
    option = f"teacher.name={folder}"
    code, lines = call(monkeypatch, capsys, "precompute", made / "c.toml", "--set", option)
    assert code == 2
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (folder.parent / "exploited").exists()


@pytest.mark.parametrize("change", [lambda _: None, sharded], ids=["one-file", "shards"])
def test_a_good_checkpoint_passes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Change,
) -> None:
    change(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    monkeypatch.setattr(sys, "argv", ["any2seg", "teacher", str(folder)])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, "FAIL" in capsys.readouterr().out) == (0, False)


def run(folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "teacher", str(folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize("change", [half(WEIGHTS), put("config.json", b"[" * 100_000)])
def test_the_command_itself_ends_with_one_line(folder: Path, change: Change) -> None:
    change(folder)
    done = run(folder)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {folder}")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "."])
def test_what_may_not_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent))
    place = folder / name
    place.chmod(0)
    if os.access(place, os.R_OK):  # root reads everything, so deny it by hand
        monkeypatch.setattr(os, "access", lambda path, _: Path(path) != place)
        real = Path.open

        def deny(self: Path, *args: Any, **options: Any) -> Any:
            if self == place:
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *args, **options)

        monkeypatch.setattr(Path, "open", deny)
    try:
        code, [line] = call(monkeypatch, capsys, "teacher", folder)
    finally:
        place.chmod(0o700)
    assert code == 2
    assert f"{place}: expected" in line
    assert "Permission denied" in line or "can be read" in line
