"""The mastery table: every probed fact with its hits, mastery and bucket, as a folder on disk.

The folder holds ``facts.parquet`` (one row a fact) and ``mastery.json`` (protocol, model, provenance).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow.errors import DataError
from sftknow.facts.fact import DOMAINS, SPLITS, Domain, Fact, Split
from sftknow.mastery.buckets import BUCKETS, all_wrong, bucket_of, bucket_of_mastery
from sftknow.records import file_digest, new_folder, read_record, write_bytes, write_record

FACTS_FILE = "facts.parquet"
RECORD_FILE = "mastery.json"


@dataclass(frozen=True, slots=True)
class ProbedFact:
    """A fact and what probing the base model found.

    Attributes:
        fact: the fact.
        hits: completions that contained an answer; None where the estimator counts nothing.
        trials: completions drawn; None where the estimator counts nothing.
        mastery: R(k), in 0..1.
        bucket: 0..4, see :mod:`sftknow.mastery.buckets`.
        template_hits: per completion template, hits of that template (or its probability, for an estimator that
            draws no samples), or of each few-shot prompt; length = number of templates of the relation.
        template_trials: per completion template, completions drawn; empty where the estimator counts nothing.
        category: SliCK's category, where the few-shot protocol made the row.
    """

    fact: Fact
    hits: int | None
    trials: int | None
    mastery: float
    bucket: int
    template_hits: tuple[float, ...]
    template_trials: tuple[int, ...] = ()
    category: str | None = None

    @classmethod
    def from_counts(
        cls, fact: Fact, template_hits: Sequence[int], template_trials: Sequence[int], category: str | None = None
    ) -> "ProbedFact":
        """Make the row of a fact from its sampled completions, counted per template."""
        hits, trials = sum(template_hits), sum(template_trials)
        return cls(
            fact,
            hits,
            trials,
            hits / trials,
            bucket_of(hits, trials),
            tuple(float(count) for count in template_hits),
            tuple(template_trials),
            category,
        )

    @classmethod
    def from_probabilities(cls, fact: Fact, probabilities: Sequence[float], samples: int = 10) -> "ProbedFact":
        """Make the row of a fact from one probability of success per template, without sampling.

        Args:
            fact: the fact.
            probabilities: of each template, that a completion is right.
            samples: completions a template that the sampled protocol would draw. A probability is never quite zero:
                the bucket is 0 where all those completions would more likely than not be wrong.
        """
        mastery = min(1.0, sum(probabilities) / len(probabilities))
        bucket = 0 if all_wrong(probabilities, samples) > 0.5 else bucket_of_mastery(mastery)
        return cls(fact, None, None, mastery, bucket, tuple(probabilities))


@dataclass(frozen=True)
class MasteryTable:
    """All probed facts of one base model.

    Attributes:
        rows: one row a fact, in the order they were given to the probe.
        protocol: estimator, templates, samples, temperature and whatever else fixes the numbers.
        made_from: identities of the model and of the facts.
        seeds: seeds of the sampling.
        templates: relation -> completion templates used, in the order of ``template_hits``.
    """

    rows: tuple[ProbedFact, ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    made_from: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    templates: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def select(
        self,
        *,
        split: Split | None = None,
        domain: Domain | None = None,
        buckets: Collection[int] = BUCKETS,
    ) -> tuple[ProbedFact, ...]:
        """Return the rows of a split, a domain and some buckets, in table order."""
        return tuple(
            row
            for row in self.rows
            if row.bucket in buckets
            and (split is None or row.fact.split == split)
            and (domain is None or row.fact.domain == domain)
        )

    def histogram(self, *, split: Split | None = None, domain: Domain | None = None) -> tuple[int, ...]:
        """Return the number of facts in each of the five buckets: the shape of the paper's Table 1."""
        counts = Counter(row.bucket for row in self.select(split=split, domain=domain))
        return tuple(counts[bucket] for bucket in BUCKETS)

    def best_templates(self) -> dict[str, str]:
        """Return, for each relation, the completion template with the highest success rate over all probed facts.

        Ties go to the template that comes first. Source: the paper's section on token-level analysis.
        """
        best = {}
        for relation, templates in self.templates.items():
            rows = [row for row in self.rows if row.fact.relation == relation]
            rates = [_success_rate(rows, position) for position in range(len(templates))]
            if rows:
                best[relation] = templates[rates.index(max(rates))]
        return best

    def write(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the table to a new folder; it appears whole or not at all.

        Raises:
            ConfigError: the folder exists without ``overwrite``, or cannot be written.
        """
        with new_folder(folder, overwrite=overwrite) as staging:
            write_bytes(staging / FACTS_FILE, _to_parquet(self.rows))
            body = {
                "protocol": dict(self.protocol),
                "templates": {relation: list(templates) for relation, templates in self.templates.items()},
                "facts": len(self.rows),
                "facts_sha256": file_digest(staging / FACTS_FILE),
                "histogram": {
                    f"{split}/{domain}": self.histogram(split=split, domain=domain)
                    for split in SPLITS
                    for domain in DOMAINS
                },
            }
            write_record(staging / RECORD_FILE, "mastery", body, made_from=self.made_from, seeds=self.seeds)


def _success_rate(rows: Sequence[ProbedFact], position: int) -> float:
    hits = sum(row.template_hits[position] for row in rows)
    trials = sum(row.template_trials[position] if row.template_trials else 1 for row in rows)
    return hits / trials if trials else 0.0


def read_mastery(folder: Path) -> MasteryTable:
    """Read a mastery table that :meth:`MasteryTable.write` wrote.

    Raises:
        DataError: the folder or one of its files is missing, damaged, or of another schema.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name a mastery table made by `sftknow probe`.")
    record = read_record(folder / RECORD_FILE, "mastery")
    path = folder / FACTS_FILE
    if not path.is_file():
        raise DataError(f"{path} is missing, so {folder} is no whole mastery table; run `sftknow probe` again.")
    if file_digest(path) != record.get("facts_sha256"):
        raise DataError(f"{path} is not the file {RECORD_FILE} was written with; run `sftknow probe` again.")
    return MasteryTable(
        rows=_from_parquet(path),
        protocol=record["protocol"],
        made_from=record["made_from"],
        seeds=record["seeds"] or {},
        templates=record["templates"],
    )


def _to_parquet(rows: Iterable[ProbedFact]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    schema = pyarrow.schema(
        [
            *((name, text) for name in ("id", "relation", "domain", "split", "subject", "question")),
            ("answers", pyarrow.list_(text)),
            ("hits", whole),
            ("trials", whole),
            ("mastery", real),
            ("bucket", whole),
            ("template_hits", pyarrow.list_(real)),
            ("template_trials", pyarrow.list_(whole)),
            ("category", text),
        ]
    )
    records = [
        {name: getattr(row.fact, name) for name in schema.names[:6]}
        | {"answers": list(row.fact.answers)}
        | {name: getattr(row, name) for name in schema.names[7:]}
        for row in rows
    ]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema), sink)
    return bytes(sink.getvalue())


def _from_parquet(path: Path) -> tuple[ProbedFact, ...]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
        return tuple(_row(record) for record in records)
    except (OSError, pyarrow.ArrowException, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a mastery table ({error}); run `sftknow probe` again.") from error


def _row(record: Mapping[str, Any]) -> ProbedFact:
    fact = Fact(
        **{name: record[name] for name in ("id", "relation", "domain", "split", "subject", "question")},
        answers=tuple(record["answers"]),
    )
    return ProbedFact(
        fact,
        record["hits"],
        record["trials"],
        record["mastery"],
        record["bucket"],
        tuple(record["template_hits"]),
        tuple(record["template_trials"]),
        record.get("category"),
    )
