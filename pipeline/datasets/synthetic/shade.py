"""Deferred shading: from surfaces, weather and lamps to linear radiance.

Sun, sky dome, haze, street lamps, headlights, lit windows and wet ground. Radiance is relative (1: a white
surface under an overcast sky).

Legend: N pixels in row-major order; colours are planar, (3, N).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic import textures
from pipeline.datasets.synthetic.primitives import F32, Color, Material
from pipeline.datasets.synthetic.raycast import Hits, Lens, cast
from pipeline.datasets.synthetic.shadow import ShadowMap, Sun
from pipeline.datasets.synthetic.street import World
from pipeline.datasets.synthetic.surface import Surface, locate
from pipeline.datasets.synthetic.weather import Weather

LAMP_COLOR: Color = (1.0, 0.80, 0.52)
WINDOW_COLOR: Color = (1.0, 0.72, 0.36)
PANE: Color = (0.045, 0.055, 0.07)
_GLOSS = {Material.GLASS: 0.30, Material.PAINT: 0.08, Material.COACH: 0.06, Material.WATER: 0.25}
_MAX_LAMPS = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure: what is where, and the light that comes from it."""

    hits: Hits
    radiance: F32
    """(3, H, W) linear RGB."""


def expose(world: World, weather: Weather, shadows: ShadowMap, lens: Lens, seconds: float) -> Frame:
    """Cast and shade the world as it is `seconds` after the image (before it, when negative)."""
    table, pose = world.primitives.moved(seconds), world.camera_at(seconds)
    hits = cast(table, lens, pose)
    surface = locate(table, hits, lens, pose)
    albedo = table.color.T[:, surface.primitive]
    emission = albedo * _emission(table.emission, surface, weather)
    _paint(albedo, emission, surface, weather)
    lit = _light(surface, weather)
    if weather.dark:
        _add_lamps(lit, surface, world.lamps)
        _add_headlights(lit, surface)
    elif weather.sunny:
        lit += _sunlight(surface, weather, shadows)
    radiance = albedo * lit + emission + _reflection(surface, weather)
    sky = np.flatnonzero(surface.material == Material.SKY)
    radiance[:, sky] = _sky(surface, weather, shadows.sun, sky)
    _add_haze(radiance, surface, weather, sky)
    image = radiance.reshape(3, lens.size_px, lens.size_px)
    _mirror(image, surface, weather, lens)
    if weather.dark:
        image += _bloom(emission.reshape(image.shape))
    return Frame(hits, _defocus(image))


def _column(color: Color) -> F32:
    return np.array(color, np.float32)[:, None]


def _emission(table_emission: F32, surface: Surface, weather: Weather) -> F32:
    """Lamps burn at night; by day only signals (and faintly headlights) are seen to glow."""
    strength = table_emission[surface.primitive]
    return strength if weather.dark else np.minimum(strength * np.float32(0.5), np.float32(0.8))


def _pixels(surface: Surface, material: Material) -> NDArray[np.intp]:
    return np.flatnonzero(surface.material == material)


def _paint(albedo: F32, emission: F32, surface: Surface, weather: Weather) -> None:
    """Apply noise and patterns to the reflectance, in place; lit windows go to the emission."""
    contrast, rate = textures.noise_tables()
    amount = contrast[surface.material] * textures.fade(surface.footprint, 0.5)
    steps = rate[surface.material]
    tone = 1 + amount * textures.noise(surface.u * steps, surface.v * steps)
    for material, pattern, detail in (
        (Material.BRICK, textures.bricks, 0.2),
        (Material.PAVING, textures.flags, 0.25),
        (Material.SLATS, lambda u, v: textures.slats(u), 0.2),
        (Material.BALLAST, lambda u, v: textures.sleepers(v), 0.35),
    ):
        which = _pixels(surface, material)
        visible = textures.fade(surface.footprint[which], detail)
        tone[which] *= 1 + visible * (pattern(surface.u[which], surface.v[which]) - 1)
    which = _pixels(surface, Material.FOLIAGE)
    tone[which] += np.float32(0.35) * textures.noise(surface.u[which] * 2, surface.v[which] * 2)
    albedo *= np.clip(tone, np.float32(0.15), np.float32(2.2))
    _paint_windows(albedo, emission, surface, weather)
    which = _pixels(surface, Material.COACH)
    along = surface.u[which] / np.float32(1.4)
    band = (surface.z[which] > 1.45) & (surface.z[which] < 2.55) & (along - np.floor(along) > 0.1)
    pane = which[band & (np.abs(surface.normal[2][which]) < 0.5)]
    albedo[:, pane] = _column(PANE)
    if weather.dark:
        emission[:, pane] += _column(WINDOW_COLOR) * np.float32(0.25)


def _paint_windows(albedo: F32, emission: F32, surface: Surface, weather: Weather) -> None:
    which = _pixels(surface, Material.FACADE)
    which = which[np.abs(surface.normal[2][which]) < 0.5]
    inside, column, floor = textures.windows(surface.u[which], surface.v[which])
    visible = textures.fade(surface.footprint[which], 0.8)
    pane = which[inside]
    share = visible[inside]
    albedo[:, pane] += share * (_column(PANE) - albedo[:, pane])
    if weather.dark:
        salt = surface.primitive[pane].astype(np.float32)
        burning = textures.cell_hash(column[inside], floor[inside], salt) < 0.38
        emission[:, pane] += _column(WINDOW_COLOR) * (np.float32(0.42) * burning)


def _light(surface: Surface, weather: Weather) -> F32:
    """Sky light: most on upward faces, less near the ground."""
    dome = np.float32(0.58) + np.float32(0.42) * surface.normal[2]
    low = np.clip(surface.z / np.float32(0.9), 0, 1)
    crevice = np.where(surface.normal[2] > 0.9, np.float32(1), 0.72 + 0.28 * low)
    return _column(weather.ambient) * (dome * crevice)


def _sunlight(surface: Surface, weather: Weather, shadows: ShadowMap) -> F32:
    x, y, z = shadows.sun.direction
    nx, ny, nz = surface.normal
    facing = np.maximum(nx * np.float32(x) + ny * np.float32(y) + nz * np.float32(z), 0)
    facing *= shadows.lit(surface.x, surface.y, surface.z)
    return np.asarray(_column(weather.sun) * facing, np.float32)


def _add_lamps(lit: F32, surface: Surface, lamps: F32) -> None:
    """Light of the nearest street lamps, in place."""
    nx, ny, nz = surface.normal
    nearest = lamps[np.argsort(np.abs(lamps[:, 1] - 8), kind="stable")[:_MAX_LAMPS]]
    total = np.zeros_like(surface.x)
    for x, y, z, strength in nearest.tolist():
        dx, dy, dz = x - surface.x, y - surface.y, z - surface.z
        square = dx * dx + dy * dy + dz * dz + np.float32(0.5)
        facing = np.maximum(nx * dx + ny * dy + nz * dz, 0) / np.sqrt(square)
        total += np.float32(11.0 * strength) * (facing + np.float32(0.12)) / square
    lit += _column(LAMP_COLOR) * total


def _add_headlights(lit: F32, surface: Surface) -> None:
    """Our own headlights: a beam below the horizon that fades with distance, in place."""
    beam = np.exp(-np.square(surface.right * np.float32(2.2)))
    cutoff = np.clip(np.float32(0.35) - surface.up * np.float32(7), np.float32(0.06), 1)
    distance = 1 + np.square(surface.depth * np.float32(0.09))
    lit += _column((0.95, 0.95, 0.85)) * (np.float32(0.85) * beam * cutoff / distance)


def _reflection(surface: Surface, weather: Weather) -> F32:
    """Glossy surfaces add a share of the sky that they face."""
    gloss = np.array([_GLOSS.get(material, 0.0) for material in Material], np.float32)
    share = gloss[surface.material] * (np.float32(0.6) + np.float32(0.4) * surface.normal[2])
    return _column(weather.horizon) * share


def _sky(surface: Surface, weather: Weather, sun: Sun, which: NDArray[np.intp]) -> F32:
    right, forward, up = surface.right[which], surface.forward[which], surface.up[which]
    height = np.clip(up / np.float32(0.55), 0, 1)
    stretch = np.float32(22) / np.clip(up, np.float32(0.06), None)
    cloud = textures.noise(right * stretch, forward * stretch)
    tone = 1 + np.float32(weather.clouds * 0.35) * cloud * np.clip(up * 6, 0, 1)
    blend = _column(weather.horizon) + height * (_column(weather.zenith) - _column(weather.horizon))
    color = blend * tone
    if weather.sunny:
        x, y, z = sun.direction
        length = np.sqrt(right * right + forward * forward + up * up)
        toward = np.maximum((right * x + forward * y + up * z) / length, 0)
        color += _column(weather.sun) * (toward**48).astype(np.float32)
    return np.asarray(color, np.float32)


def _add_haze(radiance: F32, surface: Surface, weather: Weather, sky: NDArray[np.intp]) -> None:
    clear = np.exp(surface.depth * np.float32(-weather.haze_per_m))
    if weather.haze_per_m < 0.02:
        clear[sky] = 1
    haze = _column(weather.horizon)
    radiance -= haze
    radiance *= clear
    radiance += haze


def _mirror(image: F32, surface: Surface, weather: Weather, lens: Lens) -> None:
    """Water, and level ground in the wet, mirror what stands above the horizon, in place."""
    is_water = surface.material == Material.WATER
    level = (surface.normal[2] > 0.9) & (surface.z < 0.5)
    which = np.flatnonzero(level) if weather.wet else np.flatnonzero(is_water)
    if not len(which):
        return
    row, column = np.divmod(which, lens.size_px)
    above = np.clip((2 * lens.horizon_px - row - 0.5).astype(np.intp), 0, lens.size_px - 1)
    grazing = 1 - np.clip(-surface.up[which] * 1.4, 0, 0.8)
    puddle = np.clip(0.6 + 0.25 * textures.noise(surface.u[which] * 5, surface.v[which] * 5), 0, 1)
    ground = np.float32(weather.wet) * puddle
    strength = (np.where(is_water[which], 0.8, ground) * grazing).astype(np.float32)
    seen = image[:, row, column]
    image[:, row, column] = seen + strength * (image[:, above, column] - seen)


def _bloom(emission: F32) -> F32:
    """Glow around lamps; its width follows the image's size."""
    radius = max(emission.shape[1] // 40, 1)
    glow = emission
    for axis in (1, 2, 1, 2):
        glow = _box_blur(glow, radius, axis)
    return glow * np.float32(0.9)


def _box_blur(image: F32, radius: int, axis: int) -> F32:
    """Mean over 2 radius + 1 pixels along one axis; black beyond the edge."""
    margin = [(0, 0)] * image.ndim
    margin[axis] = (radius + 1, radius)
    sums = np.moveaxis(np.cumsum(np.pad(image, margin), axis=axis), axis, -1)
    width = 2 * radius + 1
    means = (sums[..., width:] - sums[..., :-width]) / np.float32(width)
    return np.moveaxis(means, -1, axis)


def _defocus(image: F32) -> F32:
    """A lens's blur, under a pixel wide; it also tames aliasing."""
    out = image * np.float32(4)
    out[:, 1:] += image[:, :-1]
    out[:, 0] += image[:, 0]
    out[:, :-1] += image[:, 1:]
    out[:, -1] += image[:, -1]
    out /= np.float32(6)
    side = out * np.float32(4)
    side[:, :, 1:] += out[:, :, :-1]
    side[:, :, 0] += out[:, :, 0]
    side[:, :, :-1] += out[:, :, 1:]
    side[:, :, -1] += out[:, :, -1]
    side /= np.float32(6)
    return side
