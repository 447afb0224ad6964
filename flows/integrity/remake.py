"""What `repair` asks of the teacher: the units of findings made again, and no others.

Writes what `precompute` writes for these units. Fails as `precompute` does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from flows.integrity.finding import Finding
from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute, precompute_prompts
from teacher.encoding.units import plan_towers, plan_units


def remake_targets(
    config: Config, workspace: Workspace, findings: Sequence[Finding], *, progress: bool = True
) -> None:
    """Encode the shards and modalities of `findings`; make stores, index entries and prompts that lack."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.shard:
            wanted[finding.shard].add(finding.modality)
    manifest = Manifest.load(workspace.dataset(config))
    shards = {shard.name: shard for shard in manifest.all_shards if shard.name in wanted}
    holes = plan_units(plan_towers(config, workspace), list(shards.values()))
    parts = [hole.only(wanted[hole.shard], shards[hole.shard]) for hole in holes]
    units = [part for part in parts if part is not None]
    precompute(config, workspace, units=units, progress=progress)
    if any(finding.place.startswith(str(workspace.prompts)) for finding in findings):
        precompute_prompts(config, workspace)
