"""Numbers with units, for display: percentages, durations, sizes."""

from __future__ import annotations


def as_percent(fraction: float | None) -> str:
    """`37.3`, or `-` for None (a score without any labelled pixel)."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def as_duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `2 d 07 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def as_size(num_bytes: float) -> str:
    """`512 B`, `3.1 kB`, `1.2 GB` (powers of 1000)."""
    value, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
    # 999.5, not 1000: three digits would print 999.7 kB as `1e+03 kB`.
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.3g} {units[0]}"
