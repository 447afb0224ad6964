"""Mel features against upstream's audio processor (torchaudio's Kaldi features and resampling)."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from teacher.preprocessing.audio import audio_pixels, fbank, read_wav, resample, window_starts
from teacher.preprocessing.images import to_pixels
from teacher.preprocessing.options import Preprocessing

SMALL = Preprocessing("audio", num_mel_bins=28, target_length=84)


def test_equals_the_golden(goldens: Path) -> None:
    expected = load_file(goldens / "preprocess.safetensors")["audio_short"]
    found = to_pixels([goldens / "audio_short_22050.wav"], SMALL)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_equals_the_full_golden_set(shared: Path) -> None:
    folder = shared / "languagebind" / "preprocess"
    expected = load_file(folder / "expected.safetensors")
    info = json.loads((folder / "meta.json").read_text())["audio_info"]
    replay = Preprocessing("audio", num_mel_bins=28, target_length=84, window_seed=3)
    for name in ("short", "stereo_short", "long"):
        path = folder / "inputs" / info[name]["file"]
        found = audio_pixels(path, replay)
        torch.testing.assert_close(found, expected[f"audio_{name}"], atol=1e-5, rtol=0)
        samples, rate = read_wav(path)
        waveform = resample(torch.tensor(samples), rate, 16000)
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
    found = resample(tone, 22050, 16000)
    assert found.shape == (1, 16000)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
    assert (found[0, 100:-100] - expected[100:-100]).abs().max() < 1e-2


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_pcm_width_reads_to_unit_range(tmp_path: Path, width: int) -> None:
    half = {1: b"\xc0", 2: b"\x00\x40", 3: b"\x00\x00\x40", 4: b"\x00\x00\x00\x40"}[width]
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(half * 6)
    samples, rate = read_wav(tmp_path / "x.wav")
    assert rate == 8000
    assert np.array_equal(samples, np.full((2, 3), 0.5, np.float32))


def test_bad_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"not a wave file")
    with pytest.raises(ValueError, match="expected a PCM WAV file"):
        audio_pixels(tmp_path / "x.wav", SMALL)
    with pytest.raises(ValueError, match="at least 400 samples"):
        audio_pixels((np.zeros((1, 100), np.float32), 16000), SMALL)
    with pytest.raises(ValueError, match="waveform, rate"):
        audio_pixels(np.zeros(4, np.uint8), SMALL)
