"""The report's section on the data."""

import numpy as np

from flows.report.data_section import NUM_SETS_SHOWN, data_values
from pipeline.modalities import KINDS
from pipeline.shards.statistics import facts_table, measure, summarise

SPECS = {"rgb": KINDS["rgb"], "depth": KINDS["depth"]}


def row(*names: str) -> dict:
    arrays = {"rgb": np.full((4, 4, 3), 51, np.uint8), "depth": np.full((4, 4), 1000, np.uint16)}
    return {
        "height": 4,
        "width": 4,
        "modalities": list(names),
        "class_pixels": [16],
        "ignored_pixels": 0,
        "statistics": [measure(name, arrays[name], SPECS[name]) for name in names],
    }


def test_one_table_per_split_and_the_modality_sets_that_occur() -> None:
    mixed = summarise(
        facts_table([row("rgb", "depth"), row("rgb", "depth"), row("rgb")]), SPECS, ("a",)
    )
    whole = summarise(facts_table([row("rgb", "depth")]), SPECS, ("a",))
    train, val = data_values({"train": mixed, "val": whole}, SPECS)["data_splits"]
    assert (train["name"], train["num"], val["num"]) == ("train", 3, 1)
    cells = {line[0]: line[1:] for line in train["rows"]}
    assert cells["depth"][:4] == ("2 of 3", "100.0%", "1000 to 1000", "mm")
    assert cells["rgb"][-2] == "0.200  0.200  0.200"
    assert train["sets"] == ["2 samples with rgb, depth", "1 sample with rgb"]
    assert (val["sets"], val["num_more"]) == ([], 0)
    assert len(train["sets"]) <= NUM_SETS_SHOWN
