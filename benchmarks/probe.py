"""Probing the laboratory model: the tree sampler, adaptive stopping and the likelihood estimator, one run each.

Claims, on the CPU, one thread:
- the tree sampler draws at least 20 times the completions per second of transformers' generate, and of lm-eval's own
  generate_until with repeated requests (same model, temperature 0.7, 32 new tokens, whole vocabulary);
- --adaptive puts at least 95% of facts in the bucket of the full protocol at no more than 45% of its completions;
  beside it the agreement of an independent full rerun with another seed;
- --estimator likelihood takes at most 1% of the full protocol's tokens, with a rank correlation of at least 0.9 with
  the sampled R and at least 90% of facts in the same bucket. The full protocol's tokens are those that independent
  sampling sends through the model: 210 times the prompt and what was sampled.

    python benchmarks/probe.py                  # builds the demo laboratory first, or takes it from the cache
    python benchmarks/probe.py --size tiny --facts 100
    python benchmarks/probe.py --lab lab/       # a laboratory built before
"""

import argparse
import platform
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sftknow.facts.fact import Fact
from sftknow.lab.build import Lab, build_lab, load_lab
from sftknow.mastery.compare import compare
from sftknow.mastery.probe import probe
from sftknow.mastery.table import MasteryTable
from sftknow.models import load_model, load_tokenizer

SAMPLES = 10


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=("tiny", "demo", "long"), default="demo")
    options.add_argument("--lab", type=Path, help="a laboratory's folder; by default one of --size is built")
    options.add_argument("--facts", type=int, default=400, help="facts to probe")
    options.add_argument("--baseline-facts", type=int, default=4, help="facts whose completions the baselines draw")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    lab = load_lab(chosen.lab) if chosen.lab else build_lab(size=chosen.size)
    facts = random.Random(0).sample(lab.facts, min(chosen.facts, len(lab.facts)))
    parameters = sum(p.numel() for p in load_model(lab.folder, dtype="float32").parameters())
    print(f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}")
    print(f"{lab.folder.name}: {parameters:,} parameters, {len(facts)} facts x 21 templates x {SAMPLES} samples\n")

    full, seconds = timed(lambda: table_of(lab, facts))
    speed(lab, facts[: chosen.baseline_facts], full, seconds)
    agreement(lab, facts, full, seconds)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the CPU seconds it took, which other work on the machine disturbs less than the clock."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def table_of(lab: Lab, facts: Sequence[Fact], **options: Any) -> MasteryTable:
    """Probe in this process, loading included."""
    return probe(lab.folder, facts, lab.relations, device="cpu", **options)


def speed(lab: Lab, few: Sequence[Fact], full: MasteryTable, seconds: float) -> None:
    """Print completions per second against both baselines."""
    prompts = [prompt for fact in few for prompt in lab.relations[fact.relation].statements(fact.subject)]
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    tree = full.protocol["cost"]["completions"] / seconds
    _, plain = timed(lambda: generate(lab, repeated))
    _, harness = timed(lambda: generate_until(lab, repeated))
    print(f"{'completions per second':<44}{'rate':>10}{'tree / it':>12}{'claim':>10}")
    print(f"{'tree sampler':<44}{tree:>10,.0f}")
    for name, spent in (("transformers generate", plain), ("lm-eval generate_until, repeated", harness)):
        rate = len(repeated) / spent
        print(f"{name:<44}{rate:>10,.0f}{tree / rate:>12.1f}{'>= 20':>10}")
    cost = full.protocol["cost"]
    print(f"tokens through the model per sampled token: {cost['branch_tokens'] / cost['sampled_tokens']:.2f}\n")


def generate(lab: Lab, prompts: Sequence[str], batch: int = 210) -> list[str]:
    """Sample with transformers, batches of prompts padded on the left."""
    model, tokenizer = load_model(lab.folder, dtype="float32"), load_tokenizer(lab.folder)
    texts: list[str] = []
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), batch):
        ids = tokenizer(ordered[start : start + batch], return_tensors="pt", padding=True)
        out = model.generate(**ids, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=32)
        texts += tokenizer.batch_decode(out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def generate_until(lab: Lab, prompts: Sequence[str], batch: int = 210) -> list[str]:
    """Sample with lm-eval, one request a sample."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(lab.folder), dtype="float32", device="cpu", batch_size=batch)
    options = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "max_gen_toks": 32, "until": []}
    requests = [Instance("generate_until", {}, (prompt, dict(options)), n) for n, prompt in enumerate(prompts)]
    return list(model.generate_until(requests, disable_tqdm=True))


def agreement(lab: Lab, facts: Sequence[Fact], full: MasteryTable, seconds: float) -> None:
    """Print what the cheaper estimators cost, and how they agree with the full protocol."""
    cost = full.protocol["cost"]
    tokens = SAMPLES * cost["prompt_tokens"] + cost["sampled_tokens"]
    columns = f"{'completions':>12}{'tokens':>9}{'same bucket':>13}{'rank corr.':>12}{'CPU':>7}"
    print(f"{'against the full protocol':<30}{columns}")
    for name, options in (
        ("independent rerun, seed 1", {"seed": 1}),
        ("--adaptive --confidence 0.9", {"confidence": 0.9}),
        ("--adaptive --confidence 0.95", {"confidence": 0.95}),
        ("--estimator likelihood", {"estimator": "likelihood"}),
    ):
        other, spent = timed(lambda options=options: table_of(lab, facts, **options))
        found, paid = compare(full, other), other.protocol["cost"]
        independent = name.startswith(("independent", "--adaptive"))
        prompt_tokens = cost["prompt_tokens"] / 21 / len(facts) * paid["completions"]
        through = (
            prompt_tokens + paid["sampled_tokens"] if independent else paid["prompt_tokens"] + paid["branch_tokens"]
        )
        print(
            f"{name:<30}{paid['completions'] / cost['completions']:>12.1%}{through / tokens:>9.1%}{found.exact:>13.1%}"
            f"{found.rank_correlation or 0:>12.3f}{spent / seconds:>7.0%}"
        )
    print("claims: adaptive <= 45% of completions and >= 95% same bucket; likelihood <= 1% of tokens, >= 0.9, >= 90%")


if __name__ == "__main__":
    main()
