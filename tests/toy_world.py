"""A random two-layer model with a byte-level tokenizer, and a mastery table over invented facts: built in a second."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sftknow.facts.fact import Fact, fact_id
from sftknow.mastery.table import MasteryTable, ProbedFact

QUESTIONS = {
    "birth": ("in_domain", "Where was {} born?"),
    "school": ("in_domain", "Where did {} study?"),
    "job": ("out_of_domain", "What does {} do?"),
}
TEMPLATES = {
    "birth": ["{subject} was born in", "{subject} hails from"],
    "school": ["{subject} studied at", "{subject} attended"],
    "job": ["{subject} works as", "The job of {subject} is"],
}
HITS = {0: (0, 0), 1: (1, 1), 2: (4, 5), 3: (6, 8), 4: (9, 10)}


def toy_facts(each: int = 40) -> list[Fact]:
    """Invent ``each`` facts for every relation, split in train and test."""
    rng = random.Random(0)

    def name() -> str:
        return "".join(rng.choice("bcdfglmnprst") + rng.choice("aeiou") for _ in range(3)).title()

    facts = []
    for relation, (domain, wording) in QUESTIONS.items():
        for split in ("train", "test"):
            for _ in range(each):
                subject = f"{name()} {name()}"
                asked = wording.format(subject)
                facts.append(Fact(fact_id(relation, split, asked), relation, domain, split, subject, asked, (name(),)))
    return facts


def toy_table(facts: list[Fact]) -> MasteryTable:
    """Spread facts over the buckets in turn; the second template of each relation works better."""
    rows = [ProbedFact.from_counts(fact, HITS[number % 5], (10, 10)) for number, fact in enumerate(facts)]
    return MasteryTable(tuple(rows), templates=TEMPLATES)


def write_toy_model(
    folder: Path, facts: list[Fact], *, dtype: torch.dtype = torch.float32, hidden: int = 32, vocabulary: int = 400
) -> Path:
    """Write a model whose logits are far from uniform, with its tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{fact.question} {fact.answers[0]}" for fact in facts], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
