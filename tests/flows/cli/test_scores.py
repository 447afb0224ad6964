"""What `any2seg evaluate` prints of a run that is scored."""

from pathlib import Path

import pytest

from flows.cli.scores import print_scores
from pipeline.config.load import load_config
from tests.flows.made_up_run import prepare_all, write_run
from tests.flows.report.test_sources import CONFIG


@pytest.mark.parametrize("robustness", [False, True])
def test_every_score_is_printed_with_split_protocol_and_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], robustness: bool
) -> None:
    path = tmp_path / "streets.toml"
    extra = f"num_pictures = 0, robustness = {str(robustness).lower()}"
    path.write_text(CONFIG.replace("num_pictures = 4", extra))
    config = load_config(path, ["seed=11"])
    write_run(config, prepare_all(config))
    capsys.readouterr()
    print_scores(config)
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if "rgb" in line]
    assert any("rgb + depth + event + lidar" in row and "50.0" in row for row in rows)
    assert "mIoU in %: all 50.0, mean of 15 subsets" in text
    assert "worst 35.0 (rgb)" in text
    assert "split test, 5 samples, absent modalities are skipped, whole images, " in text
    assert "seed 11" in text
    for title in ("Subsets", "Conditions", "Corner cases"):
        assert title in text
    assert ("EMM zero-filled: fills" in text) == ("Corruption seed 9." in text) == robustness
    assert ("NM high" in text) == robustness
