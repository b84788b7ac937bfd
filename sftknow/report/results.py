"""The results a report is made from: a demo record read into frozen values, every field checked on the way in."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.mastery.buckets import BUCKETS
from sftknow.records import read_record

DOMAINS = ("in_domain", "out_of_domain")
STRATEGIES = ("top", "bottom", "random")
MEAN_TOLERANCE = 0.005


@dataclass(frozen=True)
class BucketScore:
    """Accuracy on the test facts of one mastery bucket.

    ``outcomes`` holds one 1.0 or 0.0 for each test fact, always in the same order, where the record carries them.
    """

    accuracy: float
    facts: int
    outcomes: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DomainScore:
    """Accuracy on one domain's test set: the unweighted mean over its non-empty buckets."""

    accuracy: float
    facts: int
    buckets: Mapping[int, BucketScore]


@dataclass(frozen=True)
class Score:
    """Accuracy in domain and out of domain."""

    in_domain: DomainScore
    out_of_domain: DomainScore

    def domain(self, name: str) -> DomainScore:
        """Return the score of one of ``DOMAINS``."""
        return self.in_domain if name == "in_domain" else self.out_of_domain


@dataclass(frozen=True)
class Divergence:
    """KL of a tuned model from its base in nats: mean over facts and a 95% interval of that mean."""

    mean: float
    low: float
    high: float
    facts: int


@dataclass(frozen=True)
class Run:
    """One fine-tuning: N facts of one mastery bucket drawn by one seed."""

    bucket: int
    n: int
    seed: int
    score: Score | None
    kl: Divergence | None
    changed: float | None


@dataclass(frozen=True)
class Concentration:
    """For one fine-tuning, the share of all relative change r that lies in the top percents: percent -> share."""

    bucket: int
    n: int
    seed: int
    share_of_r: Mapping[float, float]


@dataclass(frozen=True)
class Step:
    """One stop of a restoration sweep; percent 0 is the unrestored model."""

    percent: float
    restored: int | None
    change_undone: float | None
    r_undone: float | None
    score: Score
    kl: float | None


@dataclass(frozen=True)
class Sweep:
    """One fine-tuned model restored by growing percents under one strategy."""

    bucket: int
    n: int
    seed: int
    strategy: str
    region: str
    steps: tuple[Step, ...]

    def at(self, percent: float) -> Step | None:
        """Return the step at one percent, or None where it was not swept."""
        return next((step for step in self.steps if step.percent == percent), None)


@dataclass(frozen=True)
class Results:
    """Everything a report shows; parts that are not there yet are empty."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    histogram: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    base: Score | None = None
    runs: tuple[Run, ...] = ()
    concentration: tuple[Concentration, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    restored: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    created: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Any = None
    made_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Return the training buckets, lowest mastery first."""
        parts = (self.runs, self.concentration, self.sweeps)
        return tuple(sorted({one.bucket for part in parts for one in part}))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the training set sizes, smallest first."""
        return tuple(sorted({run.n for run in self.runs}))

    def cell(self, bucket: int, n: int) -> tuple[Run, ...]:
        """Return the scored runs of one bucket and size, by seed."""
        found = [run for run in self.runs if (run.bucket, run.n) == (bucket, n) and run.score is not None]
        return tuple(sorted(found, key=lambda run: run.seed))

    def sweeps_of(self, bucket: int, strategy: str) -> tuple[Sweep, ...]:
        """Return the sweeps of one bucket and strategy at the largest size swept, by seed."""
        found = [sweep for sweep in self.sweeps if (sweep.bucket, sweep.strategy) == (bucket, strategy)]
        largest = max((sweep.n for sweep in found), default=0)
        return tuple(sorted((sweep for sweep in found if sweep.n == largest), key=lambda sweep: sweep.seed))


def read_results(path: Path) -> Results:
    """Read a demo record from its file, or from the folder that holds ``demo.json``.

    Raises:
        DataError: the record is missing, of another schema, or one of its fields is missing or out of range.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "demo.json"
    return results_of(read_record(path, "demo"), where=str(path))


def results_of(record: Mapping[str, Any], *, where: str = "the demo record") -> Results:
    """Turn the fields of a demo record, finished or not, into :class:`Results`.

    Raises:
        DataError: a field has the wrong type or a value out of range; the sentence names it.
    """
    node = _Node(record, where, "")
    results = Results(
        settings=node.mapping("settings"),
        model=node.mapping("model"),
        protocol=node.mapping("protocol"),
        histogram={name: _counts(value) for name, value in node.optional("histogram").items()},
        base=_score(node["base"]) if node.has("base") else None,
        runs=tuple(_run(item) for item in node.items_of("runs")),
        concentration=tuple(_concentration(item) for item in node.items_of("concentration")),
        sweeps=tuple(_sweep(item) for item in node.items_of("sweeps")),
        restored=node.mapping("restored"),
        seconds={name: value.number(low=0.0) for name, value in node.optional("seconds").items()},
        created=node["created"].text() if node.has("created") else None,
        versions={name: value.text() for name, value in node.optional("versions").items()},
        seeds=record.get("seeds"),
        made_from={name: value.as_mapping() for name, value in node.optional("made_from").items()},
    )
    _check_test_sets(results, where)
    return results


def _check_test_sets(results: Results, where: str) -> None:
    """Refuse scores taken on different test sets, which could not be compared."""
    sets: dict[str, tuple[tuple[int, int], ...]] = {}
    for score in _all_scores(results):
        for domain in DOMAINS:
            found = tuple((bucket, one.facts) for bucket, one in score.domain(domain).buckets.items())
            if sets.setdefault(domain, found) != found:
                raise DataError(
                    f"{where}: some scores {domain.replace('_', ' ')} were taken on other test facts than others "
                    f"(facts by bucket {dict(sets[domain])} and {dict(found)}); score all models on one test set."
                )


def _all_scores(results: Results) -> Iterable[Score]:
    scores = [results.base, *(run.score for run in results.runs)]
    yield from (score for score in scores if score is not None)
    yield from (step.score for sweep in results.sweeps for step in sweep.steps)


def _counts(node: "_Node") -> tuple[int, ...]:
    counts = tuple(item.whole() for item in node.sequence())
    if len(counts) != len(BUCKETS):
        raise node.error(f"holds {len(counts)} counts, expected one for each of the {len(BUCKETS)} buckets")
    return counts


def _run(node: "_Node") -> Run:
    return Run(
        bucket=_bucket(node["bucket"]),
        n=node["n"].whole(low=1),
        seed=node["seed"].whole(),
        score=_score(node["score"]) if node.has("score") else None,
        kl=_divergence(node["kl"]) if node.has("kl") else None,
        changed=node.maybe("changed", high=1.0),
    )


def _divergence(node: "_Node") -> Divergence:
    return Divergence(
        mean=node["mean"].number(), low=node["low"].number(), high=node["high"].number(), facts=node["facts"].whole()
    )


def _concentration(node: "_Node") -> Concentration:
    shares = {value.key_number(): value.number(low=0.0, high=1.0) for _, value in node["share_of_r"].items()}
    return Concentration(
        bucket=_bucket(node["bucket"]),
        n=node["n"].whole(low=1),
        seed=node["seed"].whole(),
        share_of_r=dict(sorted(shares.items())),
    )


def _sweep(node: "_Node") -> Sweep:
    strategy = node["strategy"].text()
    if strategy not in STRATEGIES:
        raise node["strategy"].error(f"is {strategy!r}, expected one of {', '.join(STRATEGIES)}")
    steps = sorted((_step(item) for item in node.items_of("steps")), key=lambda step: step.percent)
    return Sweep(
        bucket=_bucket(node["bucket"]),
        n=node["n"].whole(low=1),
        seed=node["seed"].whole(),
        strategy=strategy,
        region=node["region"].text(),
        steps=tuple(steps),
    )


def _step(node: "_Node") -> Step:
    return Step(
        percent=node["percent"].number(low=0.0, high=100.0),
        restored=node["restored"].whole() if node.has("restored") else None,
        change_undone=node.maybe("change_undone", high=1.0),
        r_undone=node.maybe("r_undone", high=1.0),
        score=_score(node["score"]),
        kl=node.maybe("kl"),
    )


def _score(node: "_Node") -> Score:
    return Score(in_domain=_domain(node["in_domain"]), out_of_domain=_domain(node["out_of_domain"]))


def _domain(node: "_Node") -> DomainScore:
    buckets = {_bucket(value, value.key_whole()): _bucket_score(value) for _, value in node["buckets"].items()}
    filled = {bucket: score for bucket, score in sorted(buckets.items()) if score.facts}
    if not filled:
        raise node["buckets"].error("holds no test facts")
    accuracy = node["accuracy"].number(low=0.0, high=1.0)
    mean = sum(score.accuracy for score in filled.values()) / len(filled)
    if abs(mean - accuracy) > MEAN_TOLERANCE:
        raise node["accuracy"].error(f"is {accuracy:.4f}, but the unweighted mean over its buckets is {mean:.4f}")
    return DomainScore(accuracy=mean, facts=sum(score.facts for score in filled.values()), buckets=filled)


def _bucket_score(node: "_Node") -> BucketScore:
    facts = node["facts"].whole()
    outcomes = _outcomes(node["outcomes"], facts) if node.has("outcomes") else None
    accuracy = node["accuracy"].number(low=0.0, high=1.0) if facts else 0.0
    return BucketScore(accuracy=accuracy, facts=facts, outcomes=outcomes)


def _outcomes(node: "_Node", facts: int) -> tuple[float, ...]:
    text = node.text()
    if len(text) != facts or not set(text) <= {"0", "1"}:
        raise node.error(f"must be {facts} characters 0 or 1, one for each test fact")
    return tuple(float(character) for character in text)


def _bucket(node: "_Node", value: int | None = None) -> int:
    bucket = node.whole() if value is None else value
    if bucket not in BUCKETS:
        raise node.error(f"names bucket {bucket}, expected one of {', '.join(map(str, BUCKETS))}")
    return bucket


class _Node:
    """A value inside the record that knows where it stands, so that an error can name it."""

    def __init__(self, value: Any, where: str, path: str, key: str = "") -> None:
        self._value, self._where, self._path, self._key = value, where, path, key

    def __getitem__(self, key: str) -> "_Node":
        if not self.has(key):
            raise self._child(key, None).error("is missing")
        return self._child(key, self._value[key])

    def has(self, key: str) -> bool:
        return self.as_mapping().get(key) is not None

    def mapping(self, key: str) -> Mapping[str, Any]:
        return self[key].as_mapping() if self.has(key) else {}

    def optional(self, key: str) -> "_Node":
        return self[key] if self.has(key) else self._child(key, {})

    def maybe(self, key: str, *, low: float = 0.0, high: float | None = None) -> float | None:
        return self[key].number(low=low, high=high) if self.has(key) else None

    def items(self) -> "list[tuple[str, _Node]]":
        return [(str(key), self._child(str(key), value)) for key, value in self.as_mapping().items()]

    def items_of(self, key: str) -> "list[_Node]":
        return self[key].sequence() if self.has(key) else []

    def sequence(self) -> "list[_Node]":
        if not isinstance(self._value, Sequence) or isinstance(self._value, str):
            raise self.error("is not a list")
        return [
            _Node(item, self._where, f"{self._path}[{index}]", str(index)) for index, item in enumerate(self._value)
        ]

    def as_mapping(self) -> Mapping[str, Any]:
        if not isinstance(self._value, Mapping):
            raise self.error("is not an object with named fields")
        return self._value

    def text(self) -> str:
        if not isinstance(self._value, str):
            raise self.error(f"is {self._value!r}, expected text")
        return self._value

    def number(self, *, low: float | None = None, high: float | None = None) -> float:
        value = self._value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(f"is {value!r}, expected a number")
        if (low is not None and value < low - 1e-9) or (high is not None and value > high + 1e-9):
            raise self.error(f"is {value!r}, expected a number {_range(low, high)}")
        return float(value)

    def whole(self, *, low: int = 0) -> int:
        value = self._value
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.error(f"is {value!r}, expected a whole number of {low} or more")
        return value

    def key_number(self) -> float:
        try:
            return float(self._key)
        except ValueError:
            raise self.error(f"has the name {self._key!r}, expected a percent") from None

    def key_whole(self) -> int:
        if not self._key.isdecimal():
            raise self.error(f"has the name {self._key!r}, expected a bucket")
        return int(self._key)

    def error(self, what: str) -> DataError:
        return DataError(f"{self._where}: field {self._path or 'top'} {what}; make the record again.")

    def _child(self, key: str, value: Any) -> "_Node":
        return _Node(value, self._where, f"{self._path}.{key}" if self._path else key, key)


def _range(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"of {low:g} or more" if low is not None else f"of {high:g} or less"
