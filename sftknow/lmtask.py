"""What the YAMLs of lm_eval_tasks/cbqa_mastery call: documents from a mastery table, few-shot examples, metrics.

lm-eval hands every key of ``--metadata`` (and of ``--model_args``) to the function that makes the documents; the
options of these tasks are the keywords of :class:`TaskOptions`.
"""

import functools
import hashlib
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast, get_args

from lm_eval.api.metrics import mean
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from sftknow.errors import DataError
from sftknow.facts.aliases import load_aliases
from sftknow.facts.fact import SPLITS, Domain, Fact, Split
from sftknow.facts.matching import RULES, Matcher, exact_match, token_f1
from sftknow.facts.relations import SLOT
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.locate import load_mastery
from sftknow.mastery.table import MasteryTable, ProbedFact
from sftknow.prompts import PROMPT

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

ENVIRONMENT = "SFTKNOW_MASTERY"
TESTED, EXAMPLE, EMPTY = "tested", "example", "empty"
EXAMPLES_PER_RELATION = 32
PROMPT_FORMATS = {"paper": PROMPT, "plain": "Question: {question} Answer:", "question": "{question}"}
METRICS = ("contains", "exact_match", "f1")


class TaskError(DataError, SystemExit):
    """A DataError that lm-eval's own command line ends with as one line instead of a traceback.

    lm-eval catches nothing that a task raises. As a SystemExit whose code is the text, the error prints that text and
    nothing else; to a caller in Python it is the DataError it would be anywhere.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = f"sftknow: {text}"


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Options of the tasks, given as ``--metadata key=value`` or as a JSON object.

    Attributes:
        mastery: folder or Hub dataset of the mastery table; by default the environment variable SFTKNOW_MASTERY.
        split: which facts are tested, ``test`` or ``dev`` (or ``train``).
        facts_per_bucket: test at most so many facts of each bucket and domain; None tests all.
        facts_seed: seed of that choice; the facts for a smaller number are among those for a larger one.
        prompt_format: ``paper``, ``plain``, ``question`` (the bare question, for --apply_chat_template), or any text
            with ``{question}`` in it.
        match: how ``contains`` finds an answer, ``words`` or ``substring``; by default the table's own rule.
    """

    mastery: str = ""
    split: Split = "test"
    facts_per_bucket: int | None = None
    facts_seed: int = 0
    prompt_format: str = "paper"
    match: str | None = None


def question_docs(**metadata: Any) -> "dict[str, Dataset]":
    """Return the documents of one bucket task: a question for each tested fact, and few-shot examples.

    Args:
        metadata: the options of :class:`TaskOptions`; ``domain`` and ``bucket`` from the task's YAML (all buckets
            where there is none); and whatever else lm-eval adds.

    Raises:
        TaskError: no mastery table is given, it cannot be read, or an option makes no sense.
    """
    options = _options(metadata)
    template = _prompt_template(options.prompt_format)
    return _docs(options, metadata, lambda fact: template.format(question=fact.question))


def completion_docs(**metadata: Any) -> "dict[str, Dataset]":
    """Return the documents of one bucket task of the base-model view: a statement that stops before the answer.

    Each relation uses the template with the highest success rate in the table. Arguments and errors as for
    :func:`question_docs`.
    """
    options = _options(metadata)
    best = _table(options.mastery).best_templates()

    def prompt(fact: Fact) -> str:
        if fact.relation not in best:
            raise TaskError(f"{options.mastery} has no completion templates for {fact.relation}; run `sftknow probe`.")
        return best[fact.relation].replace(SLOT, fact.subject)

    return _docs(options, metadata, prompt)


@functools.lru_cache(maxsize=64)  # lm-eval asks for a task's documents again and again, always of the same object
def tested(docs: "Dataset") -> "Dataset":
    """Return the documents to score: those in front of the few-shot examples."""
    return docs.select(range(len(docs) - list(docs["role"]).count(EXAMPLE)))


def examples(docs: "Dataset") -> "list[dict[str, Any]]":
    """Return the few-shot examples among the documents of a task."""
    return [doc for doc in docs if doc["role"] == EXAMPLE]


def measure(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score one answer; the stand-in document of an empty bucket scores nothing, so no mean counts it.

    Args:
        doc: a document of :func:`question_docs`.
        results: the generated text, alone in a list.

    Returns:
        ``contains`` (an answer or alias occurs in the text), ``exact_match`` and ``f1``, in 0..1.
    """
    if doc["role"] == EMPTY:
        return {}
    answers = tuple(doc["answers"])
    text = results[0]
    return {
        "contains": float(_matcher(answers, doc["match"]).contains(text)),
        "exact_match": float(exact_match(text, answers)),
        "f1": float(token_f1(text, answers)),
    }


class SameRelationSampler(ContextSampler):  # type: ignore[misc]
    """Few-shot examples: train facts of the tested fact's relation, never that fact.

    The choice depends on the seed and on the tested fact alone, so it is the same under any batch size, limit or
    number of processes.
    """

    def __init__(self, df: Sequence[Mapping[str, Any]] | None = None, *, rnd: int | None = None, **kwargs: Any) -> None:
        super().__init__(df, rnd=rnd, **kwargs)
        self.seed = rnd

    def set_rnd(self, rnd: int | None) -> "SameRelationSampler":
        """Take lm-eval's --seed for few-shot examples."""
        self.seed = rnd
        return self

    def sample(
        self, n: int, eval_doc: Mapping[str, Any] | None = None, df: Any = None, **kwargs: Any
    ) -> Sequence[Mapping[str, Any]]:
        """Return ``n`` examples for one tested document."""
        if eval_doc is None or eval_doc["role"] == EMPTY:
            return []
        pool = [
            doc
            for doc in self.df
            if doc["relation"] == eval_doc["relation"]
            and doc["id"] != eval_doc["id"]
            and doc["subject"] != eval_doc["subject"]
        ]
        if len(pool) < n:
            raise TaskError(
                f"--num_fewshot {n} needs {n} other train facts of relation {eval_doc['relation']}, but of those the "
                f"mastery table offers {len(pool)} (at most {EXAMPLES_PER_RELATION}); probe more, or ask for fewer."
            )
        return random.Random(f"{self.seed} {eval_doc['id']}").sample(pool, n)


class RelationTask(ConfigurableTask):  # type: ignore[misc]
    """All facts of a domain in one task, with ``contains`` for each relation beside the means over all facts.

    A relation with fewer facts than the processes of a data-parallel launch gets no figure of its own: lm-eval needs
    every metric in every process.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})
        counts = Counter(doc["relation"] for doc in self.eval_docs if doc["role"] == TESTED)
        self.relations = {name for name, count in counts.items() if count >= _processes()}

    def process_results(self, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        """Score one answer, once for all facts and once for those of its relation."""
        scores = measure(doc, results)
        if doc["relation"] in self.relations:
            scores[f"contains_{doc['relation']}"] = scores["contains"]
        return scores

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], float]]:
        """Return the mean for every metric."""
        return {**super().aggregation(), **{f"contains_{name}": mean for name in self.relations}}

    def higher_is_better(self) -> dict[str, bool]:
        """Return that more is better, for every metric."""
        return {**super().higher_is_better(), **{f"contains_{name}": True for name in self.relations}}


def _options(metadata: Mapping[str, Any]) -> TaskOptions:
    names = [field.name for field in fields(TaskOptions)]
    for key in metadata:
        if key not in names and (near := get_close_matches(key, names, n=1, cutoff=0.85)):
            raise TaskError(f"metadata key {key!r} is no option of these tasks; did you mean {near[0]!r}?")
    given = {name: metadata[name] for name in names if metadata.get(name) is not None}
    given["mastery"] = str(given.get("mastery") or os.environ.get(ENVIRONMENT, ""))
    if not given["mastery"]:
        raise TaskError(
            "no mastery table is given; make one with `sftknow probe` and pass its folder: "
            f"--metadata mastery=FOLDER, or {ENVIRONMENT}=FOLDER in the environment."
        )
    if given.get("split", "test") not in get_args(Split):
        raise TaskError(f"split {given['split']!r} is unknown; choose one of {', '.join(SPLITS)}.")
    if given.get("match", RULES[0]) not in RULES:
        raise TaskError(f"match {given['match']!r} is unknown; choose one of {', '.join(RULES)}.")
    for name, least in (("facts_per_bucket", 1), ("facts_seed", 0)):
        value = given.get(name, least)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise TaskError(f"{name} {value!r} must be a whole number, at least {least}.")
    return TaskOptions(**given)


def _prompt_template(name: str) -> str:
    template = PROMPT_FORMATS.get(name, name)
    if template.replace("{question}", "", 1).count("{") or "{question}" not in template:
        known = ", ".join(PROMPT_FORMATS)
        raise TaskError(f"prompt_format {name!r} is none of {known}, and no text with {{question}} in it.")
    return template


def _table(reference: str) -> MasteryTable:
    try:
        return load_mastery(reference)
    except DataError as error:
        raise TaskError(str(error)) from error


def _docs(options: TaskOptions, metadata: Mapping[str, Any], prompt: Callable[[Fact], str]) -> "dict[str, Dataset]":
    from datasets import Dataset

    table, domain = _table(options.mastery), cast(Domain, metadata["domain"])
    if not table.select(split=options.split):
        raise TaskError(f"{options.mastery} has no {options.split} facts; probe some, or choose another split.")
    bucket = metadata.get("bucket")
    rows = _tested_rows(table, options, domain, BUCKETS if bucket is None else (int(bucket),))
    rule = options.match or str(table.protocol.get("match", RULES[0]))
    pool = _draw_examples(table, {row.fact.relation for row in rows}, options.facts_seed)
    records = [_record(row, TESTED, prompt, rule) for row in rows] or _stand_ins(options, domain, bucket)
    records += [_record(row, EXAMPLE, prompt, rule) for row in pool]
    return {"facts": Dataset.from_list(records, features=_features())}


def _tested_rows(table: MasteryTable, options: TaskOptions, domain: Domain, buckets: Sequence[int]) -> list[ProbedFact]:
    rows: list[ProbedFact] = []
    for bucket in buckets:
        there = table.select(split=options.split, domain=domain, buckets=(bucket,))
        rows += choose_facts(there, options.facts_per_bucket, options.facts_seed)
        if 0 < len(there) < _processes():
            log.warning(
                "bucket %d has %d facts (%s), fewer than the %d processes of this launch: data-parallel lm-eval stops "
                "at such a task; launch fewer.",
                bucket,
                len(there),
                domain.replace("_", "-"),
                _processes(),
            )
    if len(buckets) > 1:  # relation by relation, so that each process of a data-parallel run meets every relation
        rows.sort(key=lambda row: row.fact.relation)
    return rows


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_facts(rows: Sequence[ProbedFact], count: int | None, seed: int) -> tuple[ProbedFact, ...]:
    """Return at most ``count`` rows, drawn by seed, in table order; smaller choices are nested in larger ones."""
    if count is None or count >= len(rows):
        return tuple(rows)
    drawn = {row.fact.id for row in sorted(rows, key=lambda row: _lot(row, seed))[:count]}
    return tuple(row for row in rows if row.fact.id in drawn)


def _lot(row: ProbedFact, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {row.fact.id}".encode()).digest()


def _draw_examples(table: MasteryTable, relations: set[str], seed: int) -> list[ProbedFact]:
    by_relation: dict[str, list[ProbedFact]] = {relation: [] for relation in sorted(relations)}
    for row in table.rows:
        if row.fact.split == "train" and row.fact.relation in by_relation:
            by_relation[row.fact.relation].append(row)
    return [
        row
        for relation, rows in by_relation.items()
        for row in random.Random(f"{seed} {relation}").sample(rows, min(len(rows), EXAMPLES_PER_RELATION))
    ]


def _record(row: ProbedFact, role: str, prompt: Callable[[Fact], str], rule: str) -> dict[str, Any]:
    fact = row.fact
    return {
        "id": fact.id,
        "relation": fact.relation,
        "domain": fact.domain,
        "split": fact.split,
        "bucket": row.bucket,
        "mastery": row.mastery,
        "subject": fact.subject,
        "prompt": prompt(fact),
        "gold": list(fact.answers),
        "answers": list(_aliases().expand(fact.relation, fact.answers)),
        "match": rule,
        "role": role,
    }


def _stand_ins(options: TaskOptions, domain: Domain, bucket: int | None) -> list[dict[str, Any]]:
    """Return documents that score nothing, one for each process: lm-eval cannot load a task without documents."""
    log.warning(
        "%s has no %s facts (%s) in %s: it is left out of the mean.",
        "the table" if bucket is None else f"bucket {bucket}",
        options.split,
        domain.replace("_", "-"),
        options.mastery,
    )
    stand_in = Fact(EMPTY, EMPTY, domain, options.split, EMPTY, EMPTY, (EMPTY,))
    row = ProbedFact(stand_in, None, None, 0.0, bucket or 0, ())
    return [_record(row, EMPTY, lambda fact: "no fact", RULES[0])] * _processes()


def _features() -> Any:
    from datasets import Features, Sequence, Value

    text, texts = Value("string"), Sequence(Value("string"))
    kinds: Iterable[tuple[str, Any]] = (
        *((name, text) for name in ("id", "relation", "domain", "split")),
        ("bucket", Value("int64")),
        ("mastery", Value("float64")),
        ("subject", text),
        ("prompt", text),
        ("gold", texts),
        ("answers", texts),
        ("match", text),
        ("role", text),
    )
    return Features(dict(kinds))


@functools.lru_cache(maxsize=1)
def _aliases() -> Any:
    return load_aliases()


@functools.lru_cache(maxsize=65536)
def _matcher(answers: tuple[str, ...], rule: str) -> Matcher:
    return Matcher(answers, rule)
