"""Problems that must be fixed before `prepare`, and notes, derived from a diagnosis.

Problems come in the order in which to fix them: the listing, missing files, refused samples, then
values that do not mean what the config says.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.toy_teacher import toy_teacher_note
from pipeline.datasets.patterns import hidden_text
from pipeline.modalities import LABEL, ModalitySpec
from pipeline.onboarding.doctor import Diagnosis, Problem
from pipeline.shards.statistics import ModalityStatistics

MAX_METRES = 300
"""Whole-number distances that never exceed this are taken for metres: as millimetres, the sensor
would reach 30 cm."""
SATURATED_SHARE = 0.05


def problems(diagnosis: Diagnosis) -> list[Problem]:
    """What to fix, in this order; empty: ready."""
    if diagnosis.error:
        return [Problem(diagnosis.error.rstrip("."))]
    return [
        *_missing_files(diagnosis),
        *_refused(diagnosis),
        *_values(diagnosis),
        *_labels(diagnosis),
    ]


def notes(diagnosis: Diagnosis) -> list[str]:
    """Observations that do not stop `prepare`."""
    if diagnosis.error:
        return []
    toy = toy_teacher_note(diagnosis.config)
    return [
        *_counts(diagnosis),
        *map(str, diagnosis.shared),
        *_hidden(diagnosis),
        *_ranges(diagnosis),
        *_occurrence(diagnosis),
        *([toy] if toy else []),
    ]


def _missing_files(diagnosis: Diagnosis) -> Iterator[Problem]:
    allowed = getattr(diagnosis.config.dataset, "missing", "refuse") == "allow"
    for name in (LABEL, *diagnosis.config.modalities):
        incomplete = diagnosis.without(name)
        if incomplete and (name == LABEL or not allowed):
            fix = "Add the files, or remove the other files of these samples"
            if name != LABEL and not allowed:
                fix += '; or train with incomplete samples: dataset.missing = "allow"'
            yield Problem(
                f"{len(incomplete)} of {diagnosis.num_samples} samples have no {name} "
                f"(first: {incomplete[0].key})",
                fix + ".",
            )


def _refused(diagnosis: Diagnosis) -> Iterator[Problem]:
    """Refusals by reason, except missing files, which are counted over the whole listing."""
    num_decoded = len(diagnosis.decoded)
    for refusal in diagnosis.refusals:
        if refusal.reason.startswith("no "):
            continue
        yield Problem(
            f"{refusal.count} of the {num_decoded} samples read are refused "
            f"(first: {refusal.key}): {refusal.reason}",
            _hint(diagnosis, refusal.reason),
        )


def _hint(diagnosis: Diagnosis, reason: str) -> str:
    """A fix that the code which refused the file could not suggest."""
    name = reason.partition(":")[0]
    spec = diagnosis.config.specs().get(name)
    if spec is None or spec.unit != "mm" or not any(f.colour for f in diagnosis.forms(name)):
        return ""
    return (
        f"Colour files of a distance are HHA or a packed number: "
        f'set modalities.{name}.kind = "hha" for HHA.'
    )


def _values(diagnosis: Diagnosis) -> Iterator[Problem]:
    specs = diagnosis.config.specs()
    measured = diagnosis.statistics.modalities if diagnosis.statistics else {}
    for name, values in measured.items():
        if values.num_samples and values.highest is None:
            yield Problem(
                f"{name}: every pixel of the {values.num_samples} samples read is 0",
                "Check that these are the right files.",
            )
        elif looks_like_metres(values, specs[name]):
            yield Problem(
                f"{name}: distances from {values.lowest} to {values.highest}; expected millimetres, "
                "these look like metres",
                f'Set dataset.sources.{name}.unit = "m".',
            )
    packed = sorted({name for sample in diagnosis.decoded for name in sample.packed})
    for name in packed:
        yield Problem(
            f"{name}: expected HHA, found what looks like raw depth packed into colour channels",
            "Point the modality at the HHA images, or declare it as kind depth.",
        )


def looks_like_metres(values: ModalityStatistics, spec: ModalitySpec) -> bool:
    """Whether distances that should be in millimetres are too small for that unit."""
    return spec.unit == "mm" and values.highest is not None and values.highest <= MAX_METRES


def _labels(diagnosis: Diagnosis) -> Iterator[Problem]:
    statistics = diagnosis.statistics
    if statistics and statistics.num_samples and not any(statistics.class_pixels.values()):
        yield Problem(
            f"labels: every pixel of the {statistics.num_samples} samples read is ignored",
            "Check dataset.ignore_ids and that these are the right files.",
        )


def _counts(diagnosis: Diagnosis) -> Iterator[str]:
    for split, published in diagnosis.published.items():
        listed = len(diagnosis.listing.get(split, ()))
        if listed != published:
            yield (
                f"{split}: {listed} samples found, {published} published. "
                "Part of the data set, or an unfinished download?"
            )


def _hidden(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.hidden:
        yield hidden_text(diagnosis.hidden)


def _ranges(diagnosis: Diagnosis) -> Iterator[str]:
    specs = diagnosis.config.specs()
    measured = diagnosis.statistics.modalities if diagnosis.statistics else {}
    for name, values in measured.items():
        spec = specs[name]
        if spec.dtype == "uint16" and values.saturated_pixels > SATURATED_SHARE * values.pixels:
            yield (
                f"{name}: {values.saturated_pixels / values.pixels:.0%} of the pixels are at or above "
                f"max_value = {spec.max_value:g}; set modalities.{name}.max_value higher"
            )
        elif values.highest is not None and values.highest * 16 <= spec.max_value != 65_000.0:
            yield (
                f"{name}: no value is above {values.highest} of {spec.max_value:g}: all will look "
                f"dark. Set modalities.{name}.max_value, or check that these are the right files"
            )


def _occurrence(diagnosis: Diagnosis) -> Iterator[str]:
    statistics = diagnosis.statistics
    if statistics is None or not statistics.num_samples:
        return
    unseen = [name for name, count in statistics.class_pixels.items() if not count]
    if unseen:
        yield f"in no label of the {statistics.num_samples} samples read: {', '.join(unseen)}"
    if len(statistics.availability) > 1:
        sets = [
            f"{count} with {', '.join(names)}" for names, count in statistics.availability.items()
        ]
        yield f"modalities vary from sample to sample: {'; '.join(sets)}"
