"""Waveforms to pixel values as upstream's audio processor does: three windows of mel features.

Resampling is windowed-sinc (the torchaudio default: width 6, rolloff 0.99, Hann), the features are
Kaldi's fbank (25 ms / 10 ms, no dither, no energy), both written here: torchaudio is not needed.
Upstream draws the three windows of a long clip at random; ours are the middle of each third, or
its own draw from a given numpy seed.

Writes nothing. Fails with `ValueError` for a file that is not PCM WAV or a clip shorter than 25 ms.
"""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from teacher.preprocessing.options import Preprocessing, Sample, Waveform

FRAME_S, SHIFT_S = 0.025, 0.010
PREEMPHASIS = 0.97
LOW_HZ = 20.0
SINC_WIDTH, SINC_ROLLOFF = 6, 0.99
NUM_WINDOWS = 3


def audio_pixels(sample: Sample, settings: Preprocessing) -> Tensor:
    """A waveform with its rate, or a WAV file, to (3, num_mel_bins, target_length)."""
    sound = read_wav(sample) if isinstance(sample, (str, Path)) else sample
    if not isinstance(sound, tuple) or np.ndim(sound[0]) != 2:
        raise ValueError(f"audio: expected ((C, L) waveform, rate) or a path, found {type(sound)}")
    samples, rate = sound
    waveform = torch.as_tensor(np.asarray(samples, dtype=np.float32))
    waveform = resample(waveform, rate, settings.sample_rate_hz)
    waveform = waveform - waveform.mean()
    mel_TM = fbank(waveform[0], settings.sample_rate_hz, settings.num_mel_bins)
    starts = window_starts(len(mel_TM), settings.target_length, settings.window_seed)
    windows = [_window(mel_TM, start, settings.target_length) for start in starts]
    stacked = torch.stack(windows).transpose(1, 2)
    return (stacked - settings.audio_mean) / (settings.audio_std * 2)


def read_wav(path: str | Path) -> Waveform:
    """A PCM WAV file of 8, 16, 24 or 32 bits as (C, L) float32 in -1..1 and its rate."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = np.frombuffer(file.readframes(file.getnframes()), dtype=np.uint8)
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{path}: expected a PCM WAV file, found: {error}. Convert it or pass (waveform, rate)."
        ) from error
    if width == 1:
        values = (raw.astype(np.float32) - 128.0) / 128.0
    else:
        words = np.zeros((raw.size // width, 4), dtype=np.uint8)
        words[:, 4 - width :] = raw.reshape(-1, width)
        values = words.view("<i4")[:, 0].astype(np.float64) / 2.0**31
    return values.astype(np.float32).reshape(-1, channels).T, rate


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
