"""Phase one: the tokenizer and the text tower, trained without images.

Four terms, all ours: captions against the content they describe (contrastive), captions against the
prompts of the classes they name (KL to their shares), captions against the prompt of their
condition (cross-entropy), and prompts against the target cosines of `lexicon.target_gram`.
Half the captions describe random contents, half describe scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from teacher.tiny.cache import Scenes
from teacher.tiny.captions import Content, describe, mentioned_classes, random_content
from teacher.tiny.layout import LOGIT_SCALE_INIT, WIDTH, encode_texts, text_network
from teacher.tiny.lexicon import (
    CLASSES,
    CONDITIONS,
    SCORED_TEMPLATES,
    TEMPLATES,
    all_concepts,
    target_gram,
)
from teacher.tiny.progress import (
    Phase,
    contrastive_loss,
    make_optimizer,
    share_loss,
    take_step,
)
from teacher.tiny.scenes import Box, truth_of
from teacher.tiny.tokenizer import train_tokenizer

BATCH = 64
PEAK_RATE = 2e-3
NUM_MERGES = 1000
TAU = 0.1
GRAM_WEIGHT = 20.0
NUM_CLASSES = len(CLASSES)


class Describer:
    """Draws (caption, content) pairs: random contents, scene contents, and the scenes' own captions."""

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self.scenes = scenes
        self.rng = np.random.default_rng([seed, 1])

    def draw(self, num: int) -> tuple[list[str], list[Content]]:
        """`num` pairs, half of them from scenes."""
        invented = [random_content(self.rng) for _ in range(num // 2)]
        rows = self.rng.integers(len(self.scenes), size=num - len(invented))
        real = truth_of(self.scenes, rows, [Box()] * len(rows)).contents
        captions = [describe(content, self.rng) for content in invented]
        for row, content in zip(rows, real, strict=True):
            own = self.rng.random() < 0.5
            captions.append(self.scenes.captions[row] if own else describe(content, self.rng))
        return captions, [*invented, *real]


def tokenizer_corpus(describer: Describer, num: int = 4000) -> Iterator[str]:
    """Every prompt that training can draw, and a sample of its captions."""
    for concept in all_concepts():
        for name in concept.names:
            yield from (template.format(name) for template in sorted(set(TEMPLATES)))
    yield from describer.draw(num)[0]


def train_text(scenes: Scenes, phase: Phase, seed: int) -> tuple[CLIPTextModelWithProjection, Any]:
    """Train the tokenizer and the text tower; returns both, the tower in eval mode."""
    describer = Describer(scenes, seed)
    tokenizer = train_tokenizer(tokenizer_corpus(describer), NUM_MERGES)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = text_network(len(tokenizer))
        content_encoder = nn.Sequential(
            nn.Linear(2 * NUM_CLASSES + len(CONDITIONS), 256), nn.GELU(), nn.Linear(256, WIDTH)
        )
    scale = nn.Parameter(torch.tensor(LOGIT_SCALE_INIT))
    optimizer = make_optimizer([*text.parameters(), *content_encoder.parameters(), scale])
    gram = torch.from_numpy(target_gram())
    while phase.fraction < 1.0:
        captions, contents = describer.draw(BATCH)
        prompts = random_prompts(describer.rng)
        embeddings = encode_texts(text, tokenizer, [*captions, *prompts])
        caption_BD, prompt_ND = embeddings[:BATCH], embeddings[BATCH:]
        vectors = torch.from_numpy(np.stack([content.vector() for content in contents]))
        content_BD = nn.functional.normalize(content_encoder(vectors), dim=-1)
        terms = {
            "caption": contrastive_loss(caption_BD, content_BD, scale),
            "classes": share_loss(caption_BD, prompt_ND[:NUM_CLASSES], _shares(contents), TAU),
            "condition": condition_loss(caption_BD, prompt_ND, contents),
            "gram": GRAM_WEIGHT * (prompt_ND @ prompt_ND.T - gram).square().mean(),
        }
        take_step(
            optimizer, torch.stack(list(terms.values())).sum(), phase.learning_rate(PEAK_RATE)
        )
        phase.advance({name: float(term.detach()) for name, term in terms.items()})
    text.train(False)
    return text, tokenizer


def random_prompts(rng: np.random.Generator) -> list[str]:
    """One prompt of every concept, in order, with a name and a template drawn at random."""
    return [
        TEMPLATES[rng.integers(len(TEMPLATES))].format(
            concept.names[rng.integers(len(concept.names))]
        )
        for concept in all_concepts()
    ]


def condition_loss(embedding_BD: Tensor, prompt_ND: Tensor, contents: list[Content]) -> Tensor:
    """Cross-entropy over the five conditions, for the samples that have one."""
    names = list(CONDITIONS)
    weather_CD = prompt_ND[NUM_CLASSES : NUM_CLASSES + len(names)]
    known = [row for row, content in enumerate(contents) if content.condition is not None]
    target = torch.tensor([names.index(str(contents[row].condition)) for row in known])
    return nn.functional.cross_entropy(embedding_BD[known] @ weather_CD.T / TAU, target)


def concept_embeddings(encode: Callable[[list[str]], Tensor]) -> Tensor:
    """Per concept the unit mean of its first name's prompts over the scored templates, (N, D).

    `encode` maps strings to unit-norm embeddings.
    """
    rows = []
    with torch.no_grad():
        for concept in all_concepts():
            prompts = [template.format(concept.names[0]) for template in SCORED_TEMPLATES]
            rows.append(encode(prompts).mean(dim=0))
    return nn.functional.normalize(torch.stack(rows), dim=-1)


def _shares(contents: list[Content]) -> Tensor:
    """Root areas of the classes that a caption names, as shares, (B, K)."""
    shares = np.zeros((len(contents), NUM_CLASSES), np.float32)
    for row, content in enumerate(contents):
        named = mentioned_classes(content)
        shares[row, named] = np.sqrt(content.areas[named])
    return torch.from_numpy(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-6))
