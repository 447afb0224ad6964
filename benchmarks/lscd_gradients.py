"""Gradients of the distillation terms in trained students: a companion of `ablation`.

    python -m benchmarks.lscd_gradients FOLDER [--seeds 0 1 2] [options of the ablation that made FOLDER]

For the finished students of some rows, over `--batches` training batches: the gradients, in the shared
backbone, of the cross-entropy with all modalities, of a drawn subset, of each modality alone, and of each
distillation term. Printed for each term: its norm (with its weight in the row) as a share of that of the
cross-entropies which the row trains on, and its cosine with three of them. A positive cosine with the
cross-entropy of single modalities means that both pull the same way; near zero, that the term asks for
something else. Also printed: the value of each term, in nats or 1 - cosine.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ablation import SHUFFLED, base_config, config_of, parser
from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from student.losses.lscd import TERMS
from student.runs.checkpoint import load_checkpoint, load_module
from student.runs.inputs import identify, open_inputs
from student.training.trainer import Trainer

ROWS = ("paper", "paper+dense", "two passes+lscd", "two passes+lscd+dense")
SUPERVISED = ("ce", "subset_ce", "auxiliary")


def trainer_of(config: Config) -> Trainer:
    """The finished student of a row, with every supervised term turned on."""
    workspace = Workspace.of(config)
    manifest = Manifest.load(workspace.dataset(config))
    run = identify(config, workspace, manifest)
    checkpoint = load_checkpoint(run)
    if checkpoint is None:
        raise SystemExit(f"{run.id}: not trained; run the ablation with this row and seed")
    all_terms = config.train.model_copy(update={"subset_weight": 1.0, "auxiliary_weight": 1.0})
    changed = config.model_copy(update={"train": all_terms})
    trainer = Trainer(open_inputs(changed, workspace, manifest))
    for part, module in trainer.objective.named_children():
        load_module(run, part, module, checkpoint)
    return trainer


def gradients(trainer: Trainer, num_batches: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Mean gradient of each term, unweighted, in the backbone; mean value of each term."""
    weights = [p for p in trainer.model.backbone.parameters() if p.requires_grad]
    total: dict[str, Tensor] = {}
    values: dict[str, float] = {}
    batches = trainer.batches(trainer.config.train.steps - num_batches)
    for (batch,) in batches:
        terms = trainer.objective.terms(batch.to(trainer.device))
        for name, value in terms.items():
            grads = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(w) if g is None else g).flatten()
                    for w, g in zip(weights, grads, strict=True)
                ]
            )
            total[name] = total.get(name, torch.zeros_like(flat)) + flat / num_batches
            values[name] = values.get(name, 0.0) + float(value.detach()) / num_batches
    return total, values


def term_metrics(config: Config, num_batches: int) -> dict[str, dict[str, float]]:
    """For each distillation term of the config: value, share of the norm, cosines."""
    grads, values = gradients(trainer_of(config), num_batches)
    trained = grads["ce"] + config.train.subset_weight * grads["subset_ce"]
    result = {}
    for term in TERMS:
        if term in grads:
            weighted = getattr(config.student.lscd, term) * grads[term]
            cosines = {name: cosine(weighted, grads[name]) for name in SUPERVISED}
            share = float(weighted.norm() / trained.norm())
            result[term] = {"value": values[term], "share": share, **cosines}
    return result


def cosine(one: Tensor, other: Tensor) -> float:
    """Of two gradients."""
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def main() -> None:
    """Print a table."""
    arguments = parser(text=__doc__)
    arguments.add_argument("--batches", type=int, default=12)
    options = arguments.parse_args()
    folder = Path(options.folder).resolve()
    base = base_config(folder, options)
    head = ["row", "term", "value", "share of the norm", *(f"cosine with {n}" for n in SUPERVISED)]
    print("| " + " | ".join(head) + " |", "|---" * len(head) + "|", sep="\n")
    for row in options.rows or ROWS:
        seeds = [
            term_metrics(config_of(base, row, seed, folder / SHUFFLED), options.batches)
            for seed in options.seeds
        ]
        for term in seeds[0]:
            print_row(row, term, [terms[term] for terms in seeds])


def print_row(row: str, term: str, seeds: list[Mapping[str, float]]) -> None:
    """One line, means and deviations over the seeds."""
    value = statistics.mean(metrics["value"] for metrics in seeds)
    columns = [[metrics[name] for metrics in seeds] for name in ("share", *SUPERVISED)]
    cells = [f"{statistics.mean(c):+.3f} ± {statistics.pstdev(c):.3f}" for c in columns]
    print("| " + " | ".join([row, term, f"{value:.3f}", *cells]) + " |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
