"""LanguageBind's audio tower: score texts against a WAV file.

    python -m examples.languagebind_audio CHECKPOINT_FOLDER SOUND.wav \
        --text-source LanguageBind/LanguageBind_Image --text "a siren" --text "rain"

The network is an image tower's with a grid of mel bins by time. Resampling is windowed-sinc (the
torchaudio default: width 6, rolloff 0.99, Hann), the features are Kaldi's fbank (25 ms / 10 ms, no
dither, no energy); torchaudio is not needed. Upstream draws the three windows of a long clip at
random; ours are the middle of each third, or its own draw from a given numpy seed.

Shape letters: C channels, L samples, T feature frames, M mel bins, P phases.
"""

from __future__ import annotations

import json
import math
import wave
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from examples.languagebind_video import checkpoint_files
from teacher import load_text_tower
from teacher.checkpoints.hub_config import HubConfig, parse_config
from teacher.checkpoints.locate import CONFIG
from teacher.towers.vision_network import VisionNetwork
from teacher.towers.vision_tower import load_network

FRAME_S, SHIFT_S = 0.025, 0.010
PREEMPHASIS = 0.97
LOW_HZ = 20.0
SINC_WIDTH, SINC_ROLLOFF = 6, 0.99
NUM_WINDOWS = 3
DEFAULTS = {"audio_sample_rate": 16000, "audio_mean": 0.5, "audio_std": 0.5}
"""What config.json may leave out, as in upstream's class."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A waveform."""

    samples: NDArray[np.float32]
    """(C, L) in -1..1."""
    rate_hz: int


@dataclass(frozen=True, slots=True)
class Features:
    """How a sound becomes pixel values; see `features_of`."""

    num_mel_bins: int = 112
    target_length: int = 1036
    """Frames of 10 ms; shorter clips are tiled, longer ones give three windows."""
    sample_rate_hz: int = 16000
    mean: float = -4.2677393
    std: float = 4.5689974
    window_seed: int | None = None
    """None: the middle window of each third. An int: upstream's draw from that numpy seed."""


def audio_config(raw: Mapping[str, Any], where: str) -> HubConfig:
    """An audio checkpoint's config.json as an image tower's of (mel bins, frames) pixels."""
    config = parse_config({**raw, "model_type": "LanguageBindImage"}, where)
    size = [config.vision["num_mel_bins"], config.vision["target_length"]]
    return replace(config, vision={**DEFAULTS, **config.vision, "image_size": size})


def features_of(config: HubConfig, window_seed: int | None = None) -> Features:
    """The features that an audio checkpoint was trained on."""
    vision = config.vision
    return Features(
        num_mel_bins=int(vision["num_mel_bins"]),
        target_length=int(vision["target_length"]),
        sample_rate_hz=int(vision["audio_sample_rate"]),
        mean=float(vision["audio_mean"]),
        std=float(vision["audio_std"]),
        window_seed=window_seed,
    )


def load_audio_network(folder: Path) -> tuple[VisionNetwork, HubConfig]:
    """The network of a local audio checkpoint and its config. Raises `CheckpointError`."""
    path = folder / CONFIG
    config = audio_config(json.loads(path.read_text(encoding="utf-8")), str(path))
    return load_network(checkpoint_files(folder, config)), config


def audio_pixels(sound: Sound, features: Features) -> Tensor:
    """Three windows of mel features, (3, num_mel_bins, target_length)."""
    waveform = resample(torch.from_numpy(sound.samples), sound.rate_hz, features.sample_rate_hz)
    waveform = waveform - waveform.mean()
    mel_TM = fbank(waveform[0], features.sample_rate_hz, features.num_mel_bins)
    starts = window_starts(len(mel_TM), features.target_length, features.window_seed)
    windows = [_window(mel_TM, start, features.target_length) for start in starts]
    stacked = torch.stack(windows).transpose(1, 2)
    return (stacked - features.mean) / (features.std * 2)


def read_wav(path: Path) -> Sound:
    """A PCM WAV file of 8, 16, 24 or 32 bits. Raises `ValueError` for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = np.frombuffer(file.readframes(file.getnframes()), dtype=np.uint8)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: expected a PCM WAV file, found: {error}. Convert it.") from error
    if width == 1:
        values = (raw.astype(np.float32) - 128.0) / 128.0
    else:
        words = np.zeros((raw.size // width, 4), dtype=np.uint8)
        words[:, 4 - width :] = raw.reshape(-1, width)
        values = words.view("<i4")[:, 0].astype(np.float64) / 2.0**31
    return Sound(np.ascontiguousarray(values.astype(np.float32).reshape(-1, channels).T), rate)


def resample(waveform: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """Windowed-sinc resampling of (C, L) to (C, ceil(L * wanted / rate))."""
    if rate_hz == wanted_hz:
        return waveform
    divisor = math.gcd(rate_hz, wanted_hz)
    old, new = rate_hz // divisor, wanted_hz // divisor
    cutoff = min(old, new) * SINC_ROLLOFF
    width = math.ceil(SINC_WIDTH * old / cutoff)
    # float32 throughout, as upstream's function does: its rounding shows in quiet mel bins.
    taps = torch.arange(-width, width + old, dtype=torch.float32) / old
    phases = torch.arange(0, -new, -1, dtype=torch.float32) / new
    time = ((phases[:, None] + taps) * cutoff).clamp(-SINC_WIDTH, SINC_WIDTH)
    hann = torch.cos(time * math.pi / SINC_WIDTH / 2) ** 2
    angle = time * math.pi
    sinc = torch.where(angle == 0, torch.ones_like(angle), angle.sin() / angle)
    kernel = sinc * (hann * (cutoff / old))
    padded = functional.pad(waveform, (width, width + old))
    phases_CPL = functional.conv1d(padded[:, None], kernel[:, None], stride=old)
    resampled = phases_CPL.transpose(1, 2).reshape(waveform.shape[0], -1)
    return resampled[:, : math.ceil(new * waveform.shape[1] / old)]


def fbank(samples: Tensor, rate_hz: int, num_mel_bins: int) -> Tensor:
    """Kaldi log mel filter-bank energies of (L,) samples: (frames, num_mel_bins)."""
    length, shift = int(rate_hz * FRAME_S), int(rate_hz * SHIFT_S)
    if samples.numel() < length:
        raise ValueError(
            f"audio: expected at least {length} samples (25 ms), found {samples.numel()}"
        )
    frames = samples.unfold(0, length, shift)
    frames = frames - frames.mean(dim=1, keepdim=True)
    previous = functional.pad(frames[None], (1, 0), mode="replicate")[0, :, :-1]
    frames = (frames - PREEMPHASIS * previous) * torch.hann_window(length, periodic=False)
    fft_size = 1 << (length - 1).bit_length()
    power = torch.fft.rfft(frames, n=fft_size).abs() ** 2
    energies: Tensor = power @ mel_filters(num_mel_bins, fft_size, rate_hz).T
    return energies.clamp(min=torch.finfo(torch.float32).eps).log()


def mel_filters(num_mel_bins: int, fft_size: int, rate_hz: int) -> Tensor:
    """Triangular filters on Kaldi's mel scale, 20 Hz to Nyquist: (num_mel_bins, fft_size / 2 + 1).

    In float32 and in Kaldi's order of operations: quiet bins carry the rounding into the logarithm.
    """
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOW_HZ, rate_hz / 2))
    delta = (high - low) / (num_mel_bins + 1)
    edges = torch.arange(num_mel_bins)[:, None]
    left, centre, right = (low + (edges + step) * delta for step in (0.0, 1.0, 2.0))
    hertz = rate_hz / fft_size * torch.arange(fft_size // 2)
    mel = (1127.0 * (1.0 + hertz / 700.0).log())[None]
    filters = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    # Kaldi leaves out the Nyquist bin.
    return functional.pad(filters.clamp(min=0), (0, 1))


def window_starts(num_frames: int, target_length: int, seed: int | None) -> list[int]:
    """First frames of the three windows; all 0 when the clip is no longer than one window."""
    if num_frames <= target_length:
        return [0] * NUM_WINDOWS
    parts = np.array_split(np.arange(num_frames - target_length + 1), NUM_WINDOWS)
    parts = [part if part.size else np.zeros(1, dtype=int) for part in parts]
    if seed is None:
        return [int(part[part.size // 2]) for part in parts]
    # Upstream draws with numpy's legacy generator; only that one replays its windows.
    legacy = np.random.RandomState(seed)
    return [int(legacy.choice(part)) for part in parts]


def _window(mel_TM: Tensor, start: int, target_length: int) -> Tensor:
    if len(mel_TM) < target_length:
        mel_TM = mel_TM.repeat(target_length // len(mel_TM) + 1, 1)
    return mel_TM[start : start + target_length]


def main(
    checkpoint: Path,
    sound: Path,
    text: Annotated[list[str], typer.Option(help="A text to score; repeatable.")],
    text_source: Annotated[str, typer.Option(help="Source of the text tower, as teacher.name.")],
) -> None:
    """Print the cosine of every text with the sound."""
    network, config = load_audio_network(checkpoint)
    pixels = audio_pixels(read_wav(sound), features_of(config))
    with torch.inference_mode():
        cosines = load_text_tower(text_source).encode(text) @ network(pixels[None]).embedding[0]
    for line, cosine in zip(text, cosines.tolist(), strict=True):
        print(f"{cosine:.4f} {line}")


if __name__ == "__main__":
    typer.run(main)
