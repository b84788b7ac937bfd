"""Demo records made up for tests: plausible numbers, every one fixed by a seed, none of them measured."""

import math
import random
from typing import Any

BUCKETS = range(5)
WIDTHS = (0.02, 0.1, 0.3, 0.5, 0.65)


def domain(mean: float, facts: int = 60, *, seed: str = "", paired: bool = False) -> dict[str, Any]:
    """Return a domain's score whose unweighted mean is near ``mean``, rising with the bucket."""
    scale = mean / (sum(WIDTHS) / len(WIDTHS))
    buckets, difficulty = {}, random.Random("difficulty")
    for bucket in BUCKETS:
        wanted = min(max(WIDTHS[bucket] * scale, 0.0), 1.0)
        order = [difficulty.random() for _ in range(facts)]
        noise = random.Random(f"{seed} {bucket}")
        ranked = sorted(range(facts), key=lambda i: order[i] + 0.1 * noise.random())
        right = set(ranked[: round(wanted * facts)])
        accuracy = len(right) / facts
        buckets[str(bucket)] = {
            "accuracy": accuracy,
            "stderr": math.sqrt(accuracy * (1 - accuracy) / facts),
            "facts": facts,
        }
        if paired:
            buckets[str(bucket)]["outcomes"] = "".join("1" if i in right else "0" for i in range(facts))
    mean = sum(bucket["accuracy"] for bucket in buckets.values()) / len(buckets)
    stderr = math.sqrt(sum(bucket["stderr"] ** 2 for bucket in buckets.values())) / len(buckets)
    return {"accuracy": mean, "stderr": stderr, "facts": facts * len(buckets), "buckets": buckets}


def score(inside: float, outside: float, *, seed: str = "", facts: int = 60, paired: bool = False) -> dict[str, Any]:
    return {
        "in_domain": domain(inside, facts, seed=f"in {seed}", paired=paired),
        "out_of_domain": domain(outside, facts, seed=f"out {seed}", paired=paired),
    }


ACCURACY = {(0, 60): (0.21, 0.17), (0, 480): (0.14, 0.13), (4, 60): (0.25, 0.27), (4, 480): (0.36, 0.26)}
KL = {(0, 60): 0.26, (0, 480): 1.34, (4, 60): 0.47, (4, 480): 0.86}
SWEEPS = {
    (0, "top"): [
        (0, 14, 13),
        (1, 15, 14),
        (3, 15, 16),
        (5, 16, 17),
        (10, 18, 21),
        (20, 22, 24),
        (40, 26, 26),
        (60, 27, 24),
    ],
    (0, "random"): [(0, 14, 13), (5, 15, 15), (10, 16, 16), (20, 18, 18), (40, 21, 22), (60, 25, 24)],
    (4, "top"): [
        (0, 36, 26),
        (1, 36, 26),
        (3, 36, 27),
        (5, 36, 28),
        (10, 37, 31),
        (20, 37, 35),
        (40, 36, 33),
        (60, 32, 30),
    ],
    (4, "random"): [(0, 36, 26), (5, 36, 26), (10, 36, 28), (20, 37, 30), (40, 36, 33), (60, 35, 33)],
}
SHARE = {"1": 0.71, "3": 0.79, "5": 0.83, "10": 0.88, "20": 0.925, "40": 0.97, "60": 0.99}
UNDONE = {0: 0.0, 1: 0.02, 3: 0.05, 5: 0.09, 10: 0.17, 20: 0.31, 40: 0.56, 60: 0.77}
PARAMETERS = 393_216


def record(*, seeds: tuple[int, ...] = (1, 2), facts: int = 60, paired: bool = False) -> dict[str, Any]:
    """Return the body of a finished demo record."""
    jitter = random.Random(7)
    runs, sweeps, concentration = [], [], []
    for (bucket, n), (inside, outside) in ACCURACY.items():
        for seed in seeds:
            shift = jitter.uniform(-0.015, 0.015)
            kl = KL[bucket, n] * (1 + jitter.uniform(-0.05, 0.05))
            runs.append(
                {
                    "bucket": bucket,
                    "n": n,
                    "seed": seed,
                    "score": score(
                        inside + shift, outside + shift, seed=f"{bucket} {n} {seed}", facts=facts, paired=paired
                    ),
                    "kl": {"mean": kl, "low": kl * 0.88, "high": kl * 1.12, "facts": 120},
                    "changed": 0.99,
                }
            )
            shares = {percent: min(share + jitter.uniform(-0.004, 0.004), 1.0) for percent, share in SHARE.items()}
            concentration.append({"bucket": bucket, "n": n, "seed": seed, "share_of_r": shares})
    for (bucket, strategy), curve in SWEEPS.items():
        for seed in seeds:
            shift = random.Random(f"{bucket} {seed}").uniform(-0.01, 0.01)
            steps = [_step(bucket, strategy, seed, shift, *point, facts=facts, paired=paired) for point in curve]
            sweeps.append(
                {
                    "bucket": bucket,
                    "n": 480,
                    "seed": seed,
                    "strategy": strategy,
                    "region": "transformer",
                    "steps": steps,
                }
            )
    return {
        "settings": {
            "quick": False,
            "facts": "invented world",
            "buckets": [0, 4],
            "sizes": [60, 480],
            "seeds": list(seeds),
            "percents": [0, 1, 3, 5, 10, 20, 40, 60],
            "learning_rate": 5e-4,
            "test_facts_per_bucket": facts,
        },
        "model": {
            "parameters": 1_050_000,
            "layers": 2,
            "hidden": 128,
            "vocabulary": 4096,
            "trained_tokens": 1_120_000,
            "seconds": 201.4,
            "seed": 0,
            "retries": 0,
        },
        "protocol": {"templates": 21, "samples": 10, "temperature": 0.7, "max_new_tokens": 32},
        "histogram": {
            "train/in_domain": [720, 756, 297, 324, 603],
            "test/in_domain": [156, 180, 66, 72, 126],
            "test/out_of_domain": [334, 220, 97, 88, 141],
        },
        "base": score(0.19, 0.18, seed="base", facts=facts, paired=paired),
        "runs": runs,
        "concentration": concentration,
        "sweeps": sweeps,
        "seconds": {"lab": 210.0, "probe": 80.0, "tuning": 21.0, "kl": 6.0, "scores": 44.0, "sweeps": 130.0},
    }


def _step(
    bucket: int,
    strategy: str,
    seed: int,
    shift: float,
    percent: int,
    inside: int,
    outside: int,
    *,
    facts: int,
    paired: bool,
) -> dict[str, Any]:
    undone = UNDONE[percent] if strategy == "top" else percent / 100
    key = f"{bucket} {strategy if percent else 'whole'} {percent} {seed}"
    return {
        "percent": percent,
        "restored": PARAMETERS * percent // 100,
        "change_undone": undone,
        "r_undone": SHARE.get(str(percent), 0.0) if strategy == "top" else percent / 100,
        "score": score(inside / 100 + shift, outside / 100 + shift, seed=key, facts=facts, paired=paired),
        "kl": KL[bucket, 480] * (1 - undone),
    }
