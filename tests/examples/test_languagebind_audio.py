"""Audio towers against upstream's code, and mel features against its audio processor (torchaudio)."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.languagebind_audio import (
    Features,
    Sound,
    audio_config,
    audio_pixels,
    fbank,
    features_of,
    load_audio_network,
    read_wav,
    resample,
    window_starts,
)

SMALL = Features(num_mel_bins=28, target_length=84)


@torch.inference_mode()
@pytest.mark.parametrize("config", ["config.json", "config.upstream_saved.json"])
@pytest.mark.parametrize("folder", ["audio", "audio_ft"])
def test_audio_outputs_equal_the_full_golden_set(
    shared: Path, tmp_path: Path, folder: str, config: str, assert_output
) -> None:
    source = shared / "languagebind" / folder
    (tmp_path / "config.json").symlink_to(source / config)
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    io = load_file(source / "io.safetensors")
    network, _ = load_audio_network(tmp_path)
    assert_output(network(io["pixel_values"]), io)
    if "pixel_values_5d" in io:
        assert_output(network(io["pixel_values_5d"]), io, "_5d")


def test_every_golden_config_is_parsed(shared: Path) -> None:
    paths = sorted((shared / "languagebind" / "config_cases").glob("audio_*.json"))
    assert paths
    for path in paths:
        case = json.loads(path.read_text())
        wanted = dict(case["effective_in_upstream"]["vision"])
        wanted.pop("image_size", None)
        config = audio_config(case["config_json"], path.name)
        assert {name: config.vision[name] for name in wanted} == wanted, path.name


def test_the_checkpoint_gives_the_grid_and_the_features() -> None:
    vision = {"num_mel_bins": 126, "target_length": 1036, "audio_mean": -4.0, "patch_size": 14}
    config = audio_config({"model_type": "LanguageBindAudio", "vision_config": vision}, "here")
    assert config.grid == (9, 74)
    assert features_of(config) == Features(126, 1036, 16000, -4.0, 0.5)


def test_pixel_values_equal_the_golden(goldens: Path, teacher_goldens: Path) -> None:
    expected = load_file(teacher_goldens / "preprocess.safetensors")["audio_short"]
    pixels = audio_pixels(read_wav(goldens / "audio_short_22050.wav"), SMALL)
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)


def test_audio_pixel_values_equal_the_full_golden_set(shared: Path) -> None:
    folder = shared / "languagebind" / "preprocess"
    expected = load_file(folder / "expected.safetensors")
    info = json.loads((folder / "meta.json").read_text())["audio_info"]
    replay = Features(num_mel_bins=28, target_length=84, window_seed=3)
    for name in ("short", "stereo_short", "long"):
        sound = read_wav(folder / "inputs" / info[name]["file"])
        pixels = audio_pixels(sound, replay)
        torch.testing.assert_close(pixels, expected[f"audio_{name}"], atol=1e-5, rtol=0)
        waveform = resample(torch.tensor(sound.samples), sound.rate_hz, 16000)
        mel = fbank((waveform - waveform.mean())[0], 16000, 28)
        golden = expected[f"audio_{name}.mel_unnormalised_TxM"]
        torch.testing.assert_close(mel, golden, atol=1e-4, rtol=0)
    assert window_starts(238, 84, 3) == info["long"]["chunk_starts_with_seed_3"]


def test_windows_are_the_middle_of_each_third() -> None:
    assert window_starts(238, 84, None) == [26, 78, 129]
    assert window_starts(84, 84, None) == [0, 0, 0]
    assert window_starts(85, 84, None) == [0, 1, 0]


def test_resampling_keeps_a_tone() -> None:
    time = torch.arange(22050) / 22050
    tone = torch.sin(2 * torch.pi * 440 * time)[None]
    resampled = resample(tone, 22050, 16000)
    assert resampled.shape == (1, 16000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert (resampled[0, 100:-100] - expected[100:-100]).abs().max() < 1e-2


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_pcm_width_reads_to_unit_range(tmp_path: Path, width: int) -> None:
    half = {1: b"\xc0", 2: b"\x00\x40", 3: b"\x00\x00\x40", 4: b"\x00\x00\x00\x40"}[width]
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(half * 6)
    sound = read_wav(tmp_path / "x.wav")
    assert sound.rate_hz == 8000
    assert np.array_equal(sound.samples, np.full((2, 3), 0.5, np.float32))


def test_bad_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"not a wave file")
    with pytest.raises(ValueError, match="expected a PCM WAV file"):
        read_wav(tmp_path / "x.wav")
    with pytest.raises(ValueError, match="at least 400 samples"):
        audio_pixels(Sound(np.zeros((1, 100), np.float32), 16000), SMALL)
