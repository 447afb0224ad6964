"""The shipped checkpoint: in upstream's layout, small, what its provenance says, and any good."""

from __future__ import annotations

import json
import re

import pytest
from safetensors import safe_open

from pipeline.storage.files import read_json, sha256_file
from teacher.tiny.layout import TOWERS
from teacher.tiny.score import score_directory
from teacher.towers.text_tower import load_text_tower
from teacher.towers.vision_tower import load_tower

MAX_BYTES = 10_000_000
SENSORS = ("rgb", "event", "depth", "lidar")


@pytest.fixture(scope="module")
def scores(assets, scenes):
    return score_directory(assets, scenes)


def test_size_and_files(assets):
    assert sum(path.stat().st_size for path in assets.rglob("*") if path.is_file()) <= MAX_BYTES
    for folder in TOWERS.values():
        names = {path.name for path in (assets / folder).iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json", "vocab.json"} <= names


def test_tensors_carry_upstreams_names(assets):
    with safe_open(assets / "LanguageBind_Depth" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert file.get_tensor("vision_model.embeddings.position_ids").shape == (1, 65)
    assert {"logit_scale", "visual_projection.weight", "text_projection.weight"} <= names
    assert "vision_model.pre_layrnorm.weight" in names
    assert "text_model.encoder.layers.1.self_attn.q_proj.weight" in names


def test_both_towers_carry_the_same_text_tower(assets):
    image = load_text_tower(str(assets / "LanguageBind_Image"))
    depth = load_text_tower(str(assets / "LanguageBind_Depth"))
    prompts = ["a photo of a bus.", "zebra \N{SNOWMAN}"]
    assert (image.encode(prompts) == depth.encode(prompts)).all()


@pytest.mark.parametrize("name", list(TOWERS))
def test_loads_strictly_by_its_short_name(name):
    tower = load_tower("languagebind-tiny", name)
    assert tower.embedding_dim == 128
    assert 0.0 < tower.logit_scale < 4.61


def test_provenance_matches_the_files(assets):
    record = read_json(assets / "provenance.json")
    found = {path.relative_to(assets).as_posix() for path in assets.glob("*/*")}
    assert set(record["files"]) == found
    for name, digest in record["files"].items():
        assert sha256_file(assets / name) == digest
    assert not re.search(r"[\s\"=]/\w", json.dumps(record)), "a path of the machine that trained it"
    assert record["scores"]["num_scenes"] >= 300


@pytest.mark.parametrize("sensor", SENSORS)
def test_towers_recognise_content_of_unseen_scenes(assets, scores, sensor):
    """40 scenes are few: a third of the recorded margin over chance must show (patches: half)."""
    record = read_json(assets / "provenance.json")["scores"]
    for measure, share in (("presence_auc_mean", 1 / 3), ("patch_accuracy", 1 / 2)):
        margin = record["sensors"][sensor][measure] - record["chance"][measure]
        assert margin > 0.1
        found = scores["sensors"][sensor][measure] - scores["chance"][measure]
        assert found > share * margin, measure


def test_image_embeddings_separate_the_conditions(scores):
    assert (
        scores["sensors"]["rgb"]["condition_accuracy"]
        > scores["chance"]["condition_accuracy"] + 0.3
    )


def test_embeddings_differ_between_scenes_and_kin_prompts_are_near(scores):
    assert scores["between_sensors"]["kl_nats"] > 0.034
    cosines = scores["prompt_cosines"]
    assert cosines["car-truck"] > cosines["car-sky"] + 0.2
    assert cosines["vegetation-terrain"] > cosines["road-building"] + 0.1
