"""One unit of the demo: a fine-tuning and everything measured on it, run in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sftknow.demo.settings import DemoSettings
from sftknow.errors import DataError
from sftknow.facts.fact import Domain
from sftknow.records import digest, read_record, write_record

STRATEGIES = ("top", "random")
REGION = "transformer"
KL_DOMAIN: Domain = "in_domain"
BATCH_SIZE = 64


@dataclass(frozen=True)
class Unit:
    """A fine-tuning of the demo and where it lives; ``bucket`` None stands for the untuned base model.

    Attributes:
        base: folder of the base model.
        table: folder of its mastery table.
        folder: holds a folder for each unit, with its tuned checkpoint and ``unit.json``.
        settings: the demo's settings.
        inputs: digest of everything else the result depends on (laboratory, mastery table).
        bucket: source bucket of the training facts.
        n: number of training facts.
        seed: seed of selection and training.
        sweep: whether restoration is swept over all percents, for each of ``STRATEGIES``.
        restored: folder for a restored checkpoint of this fine-tuning, where one is wanted.
        device: a torch device.
    """

    base: Path
    table: Path
    folder: Path
    settings: DemoSettings
    inputs: str
    bucket: int | None = None
    n: int = 0
    seed: int = 0
    sweep: bool = False
    restored: Path | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Return a short readable name, also the folder's."""
        return "base" if self.bucket is None else f"bucket{self.bucket}-n{self.n}-seed{self.seed}"

    @property
    def home(self) -> Path:
        """Return the unit's own folder."""
        return self.folder / self.name

    @property
    def tuned(self) -> Path:
        """Return the folder of the tuned checkpoint."""
        return self.home / "model"

    @property
    def key(self) -> str:
        """Return a digest of everything the unit's results depend on."""
        settings = replace(self.settings, facts=None)
        return digest([self.inputs, self.bucket, self.n, self.seed, self.sweep, repr(settings)])

    def finished(self) -> dict[str, Any] | None:
        """Return the unit's record where an earlier run finished it with the same inputs, else None."""
        try:
            record = read_record(self.home / "unit.json", "demo-unit")
        except DataError:
            return None
        return record if record.get("key") == self.key else None


def run_unit(unit: Unit) -> dict[str, Any]:
    """Carry out a unit and write ``unit.json``; what an earlier run finished is returned as it is."""
    done = unit.finished()
    if done is not None:
        return done
    unit.home.mkdir(parents=True, exist_ok=True)
    body = _measure_base(unit) if unit.bucket is None else _tune_and_measure(unit)
    return write_record(unit.home / "unit.json", "demo-unit", {"key": unit.key, "name": unit.name, **body})


def _measure_base(unit: Unit) -> dict[str, Any]:
    return {"score": _score_fields(_Bench(unit, unit.base).scorer.score())}


def _tune_and_measure(unit: Unit) -> dict[str, Any]:
    """Fine-tune, score, take the KL, and sweep the restoration of the large fine-tunings."""
    from sftknow.kl import last_logits
    from sftknow.models import load_model, load_tokenizer
    from sftknow.tuning.train import train

    assert unit.bucket is not None
    trained = train(
        unit.base,
        unit.table,
        unit.tuned,
        bucket=unit.bucket,
        n=unit.n,
        seed=unit.seed,
        learning_rate=unit.settings.learning_rate,
        device=unit.device,
        overwrite=True,
    )
    assert trained.changes is not None  # only an adapter that was not merged has none
    bench = _Bench(unit, unit.tuned)
    base = load_model(unit.base, device=unit.device)
    base_logits = last_logits(base, load_tokenizer(unit.base), bench.prompts)
    whole = bench.measure(base_logits)
    run = {"bucket": unit.bucket, "n": unit.n, "seed": unit.seed}
    body: dict[str, Any] = {"run": {**run, **whole, "changed": trained.changes.fraction}}
    if unit.sweep:
        body |= _sweep(unit, bench, base, base_logits, whole, run)
    return body


class _Bench:
    """A loaded model with what measures it; its weights may change between measurements."""

    def __init__(self, unit: Unit, folder: Path) -> None:
        from sftknow.kl import kl_prompts
        from sftknow.mastery.table import read_mastery
        from sftknow.models import load_model, load_tokenizer
        from sftknow.scoring import Scorer

        self.unit = unit
        self.model = load_model(folder, device=unit.device)
        self.tokenizer = load_tokenizer(folder)
        self.prompts = kl_prompts(read_mastery(unit.table), domain=KL_DOMAIN)
        self.scorer = Scorer(
            self.model,
            unit.table,
            tokenizer=self.tokenizer,
            facts_per_bucket=unit.settings.test_facts_per_bucket,
            seed=unit.settings.sampling_seed,
            batch_size=BATCH_SIZE,
        )

    def measure(self, base_logits: Any) -> dict[str, Any]:
        """Return score and KL of the model as its weights are now."""
        from sftknow.kl import divergence_from_logits, last_logits

        logits = last_logits(self.model, self.tokenizer, self.prompts)
        kl = divergence_from_logits(self.prompts, base_logits, logits, seed=self.unit.settings.sampling_seed)
        mean = {"mean": kl.mean, "low": kl.low, "high": kl.high, "facts": len(self.prompts)}
        return {"score": _score_fields(self.scorer.score()), "kl": mean}


def _sweep(
    unit: Unit, bench: _Bench, base: Any, base_logits: Any, whole: Mapping[str, Any], run: Mapping[str, int]
) -> dict[str, Any]:
    """Restore rising percents of the live model, largest change first and at random, and measure each stop."""
    from sftknow.restoration.inplace import Restoration

    start = {"percent": 0, "restored": 0, "change_undone": 0.0, "r_undone": 0.0, **_step_fields(whole)}
    sweeps: list[dict[str, Any]] = []
    shares: Mapping[str, float] = {}
    for strategy in STRATEGIES:
        plan = Restoration.plan(
            base, bench.model, unit.settings.percents, strategy=strategy, region=REGION, seed=unit.seed, threads=1
        )
        steps = [
            {
                "percent": step.percent,
                "restored": step.restored,
                "change_undone": step.share_of_change_undone,
                "r_undone": step.share_of_relative_change_undone,
                **_step_fields(bench.measure(base_logits)),
            }
            for step in plan
        ]
        plan.reset()
        sweeps.append({**run, "strategy": strategy, "region": REGION, "steps": [start, *steps]})
        shares = shares or plan.record["concentration"]["share"]
    body: dict[str, Any] = {"concentration": [{**run, "share_of_r": dict(shares)}], "sweeps": sweeps}
    if unit.restored is not None:
        body["restored"] = _restored_checkpoint(unit, sweeps[0])
    return body


def _restored_checkpoint(unit: Unit, sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Write one restored checkpoint and score it from disk: the figures must be those of the sweep in memory."""
    from sftknow.restoration.restore import restore

    assert unit.restored is not None
    percent = unit.settings.restored_percent
    restore(unit.base, unit.tuned, unit.restored, percent, region=REGION, seed=unit.seed, threads=1, overwrite=True)
    score = _score_fields(_Bench(unit, unit.restored).scorer.score())
    in_memory = next(step["score"] for step in sweep["steps"] if step["percent"] == percent)
    return {
        "folder": str(unit.restored),
        "from": unit.name,
        "percent": percent,
        "score": score,
        "as_in_memory": score == in_memory,
    }


def _step_fields(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {"score": measured["score"], "kl": measured["kl"]["mean"]}


def _score_fields(scores: Any) -> dict[str, Any]:
    """Return a score as the report reads it, with each bucket's outcomes as 0 and 1 in the order of the facts."""
    record: dict[str, Any] = scores.to_record()
    for domain, fields in record.items():
        for bucket, part in fields["buckets"].items():
            hits = [one.contains for one in scores.outcomes if one.domain == domain and str(one.bucket) == bucket]
            part["outcomes"] = "".join("01"[hit] for hit in hits)
    return record
