"""The text of `any2seg doctor`: tables of a diagnosis, notes, and `ready` or what to fix first.

print("\n".join(lines(diagnosis)))
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pipeline.modalities import LABEL
from pipeline.onboarding.doctor import Diagnosis
from pipeline.onboarding.doctor_rules import notes, problems
from pipeline.shards.statistics import MODALITY_COLUMNS, modality_rows

NUM_FIRST = 3
"""Problems that are printed; the others usually follow from them."""
NUM_EXAMPLES = 3
_NUMBER = re.compile(r"[\d.]+%?( of \d+)?|-")


def lines(diagnosis: Diagnosis, sheet: str = "", teacher: Sequence[str] = ()) -> Iterator[str]:
    """The whole report, line by line; `sheet` is the path of the contact sheet.

    `teacher`: what its towers see of the sensors that they were not built for, a line each.
    """
    yield f"{diagnosis.config.dataset.adapter}: {_root(diagnosis)}"
    if diagnosis.listing:
        yield from _section("Samples listed", _split_table(diagnosis))
        yield from _section("Files", _file_table(diagnosis))
        yield from _unmatched(diagnosis)
        yield from _section("Values", _value_table(diagnosis))
        yield from _section("Labels", _label_table(diagnosis))
        yield from _refusals(diagnosis)
        yield ""
        yield _speed(diagnosis)
        if sheet:
            yield f"Contact sheet: {sheet}"
    if teacher:
        yield ""
        yield "Seen by the teacher"
        yield from (f"  {line}" for line in teacher)
    remarks = notes(diagnosis)
    if remarks:
        yield ""
        yield from (f"note: {note}" for note in remarks)
    yield ""
    yield from _verdict(diagnosis)


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with aligned columns; numbers to the right."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_aligned, row, widths)).rstrip() for row in rows]


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if _NUMBER.fullmatch(cell) else cell.ljust(width)


def _section(title: str, rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if len(rows) > 1:
        yield ""
        yield title
        yield from (f"  {line}" for line in table(rows))


def _root(diagnosis: Diagnosis) -> str:
    return str(getattr(diagnosis.config.dataset, "root", "rendered"))


def _split_table(diagnosis: Diagnosis) -> list[list[str]]:
    """One row a split: samples listed and published, and its conditions and corner cases."""
    samples = [s for listed in diagnosis.listing.values() for s in listed]
    conditions = sorted({s.condition for s in samples} - {""})
    cases = sorted({s.corner_case for s in samples} - {""})
    rows = [["split", "found", "published", *conditions, *cases]]
    for split, listed in diagnosis.listing.items():
        by_condition = Counter(s.condition for s in listed)
        by_case = Counter(s.corner_case for s in listed)
        counts = [by_condition[c] for c in conditions] + [by_case[c] for c in cases]
        rows.append(
            [split, str(len(listed)), str(diagnosis.published.get(split, "-")), *map(str, counts)]
        )
    return rows


def _file_table(diagnosis: Diagnosis) -> list[list[str]]:
    rows = [["modality", "samples without", "unmatched files", "form of the files read"]]
    for name in (*diagnosis.config.modalities, LABEL):
        forms = diagnosis.forms(name).most_common()
        text = ", ".join(f"{form} ({count})" for form, count in forms[:NUM_EXAMPLES])
        more = f", {len(forms) - NUM_EXAMPLES} more" if len(forms) > NUM_EXAMPLES else ""
        counts = (len(diagnosis.without(name)), len(diagnosis.unmatched.get(name, ())))
        rows.append([name, *map(str, counts), text + more])
    return rows


def _unmatched(diagnosis: Diagnosis) -> Iterator[str]:
    for name in (*diagnosis.config.modalities, LABEL):
        incomplete = diagnosis.without(name)
        if incomplete:
            yield f"  without {name}: {_examples([sample.key for sample in incomplete])}"
    for name, files in diagnosis.unmatched.items():
        below = [str(file).removeprefix(f"{_root(diagnosis)}/") for file in files[:NUM_EXAMPLES]]
        rest = ", ..." if len(files) > NUM_EXAMPLES else ""
        yield f"  belonging to no sample, {name}: {len(files)} files, {', '.join(below)}{rest}"


def _examples(keys: Sequence[str]) -> str:
    return ", ".join(keys[:NUM_EXAMPLES]) + (", ..." if len(keys) > NUM_EXAMPLES else "")


def _value_table(diagnosis: Diagnosis) -> list[Sequence[str]]:
    if diagnosis.statistics is None or not diagnosis.statistics.num_samples:
        return []
    rows = modality_rows(diagnosis.statistics, diagnosis.config.specs())
    return [MODALITY_COLUMNS, *rows]


def _label_table(diagnosis: Diagnosis) -> list[list[str]]:
    """One row a class: its share of the labelled pixels and the samples that contain it."""
    statistics = diagnosis.statistics
    if statistics is None or not statistics.num_samples:
        return []
    rows = [["id", "class", "pixels", "samples"]]
    facts = [d.facts for d in diagnosis.decoded if d.facts is not None]
    for index, (name, share) in enumerate(statistics.class_shares().items()):
        holders = sum(1 for row in facts if row["class_pixels"][index])
        rows.append([str(index), name, f"{share:.2%}", f"{holders} of {len(facts)}"])
    total = sum(statistics.class_pixels.values()) + statistics.ignored_pixels
    holders = sum(1 for row in facts if row["ignored_pixels"])
    share = statistics.ignored_pixels / max(1, total)
    rows.append(["255", "(ignored)", f"{share:.2%}", f"{holders} of {len(facts)}"])
    return rows


def _refusals(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.refusals:
        yield ""
        yield "Refused"
    for refusal in diagnosis.refusals:
        yield f"  {refusal.count} x {refusal.reason} (first: {refusal.key})"


def _speed(diagnosis: Diagnosis) -> str:
    count = len(diagnosis.decoded)
    processes = "1 process" if diagnosis.workers == 1 else f"{diagnosis.workers} processes"
    some = "all" if count == diagnosis.num_samples else f"{count} of"
    return (
        f"Read {some} {diagnosis.num_samples} samples in {diagnosis.seconds:.1f} s with {processes}, "
        f"{1000 * diagnosis.seconds / max(1, count):.1f} s per thousand samples "
        f"({diagnosis.decoding_s_per_thousand:.1f} s of CPU time for decoding alone)."
    )


def _verdict(diagnosis: Diagnosis) -> Iterator[str]:
    to_fix = problems(diagnosis)
    if not to_fix:
        yield "ready"
        return
    yield "Fix first:" if len(to_fix) > 1 else "Fix:"
    yield from (f"  {number}. {problem}" for number, problem in enumerate(to_fix[:NUM_FIRST], 1))
    if len(to_fix) > NUM_FIRST:
        yield f"  ... and {len(to_fix) - NUM_FIRST} more"
