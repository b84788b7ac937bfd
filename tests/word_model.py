"""A small random model that speaks in words, and mastery tables whose answers it is known to give or not."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sftknow.facts.fact import Fact, fact_id
from sftknow.mastery.table import MasteryTable, ProbedFact

WORDS = [f"{onset}{nucleus}{coda}" for onset in "bdfgklmnprstvz" for nucleus in "aeiou" for coda in ("ndo", "rix")]
RELATIONS = {"in_domain": ("birth", "school"), "out_of_domain": ("author",)}
NEVER = "Timbuktu"
TEMPLATES = {
    relation: ["{subject} " + relation + " was", "The " + relation + " of {subject} is"]
    for names in RELATIONS.values()
    for relation in names
}


def write_model(folder: Path, *, bos: bool = True) -> Path:
    """Write a random two-layer model and its word tokenizer."""
    markers = ["<|question|>", "<|answer|>", "Where", "was", "of", "The", "is", "?", *TEMPLATES]
    special = ["<s>", "</s>", "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *markers, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.6,
        bos_token_id=0,
        eos_token_id=1,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def question(subject: str, relation: str) -> str:
    return f"Where was {relation} of {subject} ?"


def continuation(folder: Path, prompt: str, tokens: int = 16) -> str:
    """Continue a prompt greedily: one full forward pass a token, nothing batched, padded or cached."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + tokens:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def known_table(
    folder: Path, known: dict[tuple[str, int], int], *, facts: int = 5, train: int = 6, prompts: dict[str, str]
) -> MasteryTable:
    """Make a table of ``facts`` test facts per domain and bucket.

    Args:
        folder: the model's folder.
        known: (domain, bucket) -> how many of its facts the model answers right; a bucket left out has no facts.
        facts: test facts in each bucket.
        train: train facts of each relation.
        prompts: subject -> filled with what was asked, for the caller.
    """
    rng = random.Random(5)
    subjects = iter(rng.sample([f"{first} {last}" for first in WORDS for last in WORDS], 2000))
    rows = []
    for (domain, bucket), right in known.items():
        for number in range(facts):
            relation, subject = rng.choice(RELATIONS[domain]), next(subjects)
            asked = question(subject, relation)
            prompts[subject] = f"<|question|> {asked} <|answer|>"
            answer = continuation(folder, prompts[subject]).split()[-1] if number < right else NEVER
            rows.append(_row(relation, domain, "test", subject, asked, answer, bucket))
    for domain, names in RELATIONS.items():
        for relation in names:
            for _ in range(train):
                subject = next(subjects)
                rows.append(
                    _row(relation, domain, "train", subject, question(subject, relation), rng.choice(WORDS), bucket=2)
                )
    return MasteryTable(tuple(rows), protocol={"estimator": "by hand"}, templates=TEMPLATES)


def _row(relation: str, domain: str, split: str, subject: str, asked: str, answer: str, bucket: int) -> ProbedFact:
    fact = Fact(fact_id(relation, split, asked), relation, domain, split, subject, asked, (answer,))
    hits = {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (2, 1), 4: (2, 2)}[bucket]
    return ProbedFact.from_counts(fact, hits, (2, 2))
