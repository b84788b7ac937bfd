"""A mastery table in a few lines of text: facts per bucket, the shape of the paper's Table 1, and best templates."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sftknow.facts.fact import DOMAINS, SPLITS
from sftknow.mastery.buckets import BUCKETS
from sftknow.mastery.table import MasteryTable, ProbedFact


def histogram_lines(table: MasteryTable, *, by_relation: bool = True) -> list[str]:
    """Return the number of facts in each bucket: one line a split and domain, and one a relation below it.

    Source: the paper's Table 1.
    """
    head = f"{'':<24}{'facts':>8}" + "".join(f"{f'bucket {bucket}':>10}" for bucket in BUCKETS) + f"{'mean R':>9}"
    lines = [head]
    for split in SPLITS:
        for domain in DOMAINS:
            rows = table.select(split=split, domain=domain)
            if not rows:
                continue
            lines.append(_line(f"{split} {domain.replace('_', '-')}", rows))
            for relation in dict.fromkeys(row.fact.relation for row in rows) if by_relation else ():
                lines.append(_line(f"  {relation}", [row for row in rows if row.fact.relation == relation]))
    return lines


def share_lines(table: MasteryTable) -> list[str]:
    """Return the percentage of facts in each bucket: one line a split and domain."""
    lines = []
    for split in SPLITS:
        for domain in DOMAINS:
            counts = table.histogram(split=split, domain=domain)
            if sum(counts):
                shares = "".join(f"{100 * count / sum(counts):>9.1f}%" for count in counts)
                lines.append(f"{f'{split} ' + domain.replace('_', '-'):<24}{sum(counts):>8,}{shares}")
    return lines


def best_template_lines(table: MasteryTable) -> list[str]:
    """Return for each relation the completion template with the highest success rate, and that rate."""
    lines = []
    for relation, template in table.best_templates().items():
        position = list(table.templates[relation]).index(template)
        rows = [row for row in table.rows if row.fact.relation == relation]
        lines.append(f"  {relation:<14}{100 * template_rate(rows, position):>6.1f}%  {template} ...")
    return lines


def template_rate(rows: Iterable[ProbedFact], position: int) -> float:
    """Return the share of one template's completions that are right, over several facts."""
    rows = list(rows)
    hits = sum(row.template_hits[position] for row in rows)
    trials = sum(row.template_trials[position] if row.template_trials else 1 for row in rows)
    return hits / trials if trials else 0.0


def _line(label: str, rows: Sequence[ProbedFact]) -> str:
    counts = Counter(row.bucket for row in rows)
    mean = sum(row.mastery for row in rows) / len(rows)
    return f"{label:<24}{len(rows):>8,}" + "".join(f"{counts[bucket]:>10,}" for bucket in BUCKETS) + f"{mean:>9.3f}"


def cost_lines(table: MasteryTable) -> list[str]:
    """Return what the table cost, and what the estimator found beside the buckets."""
    cost = table.protocol.get("cost", {})
    tokens = cost.get("prompt_tokens", 0) + cost.get("branch_tokens", 0)
    counts = {"completions": cost.get("completions", 0), "tokens through the model": tokens}
    lines = [", ".join(f"{count:,} {what}" for what, count in counts.items() if count)]
    adaptive = table.protocol.get("adaptive")
    if adaptive:
        lines.append(
            f"adaptive: {100 * adaptive['completions_share']:.1f}% of the full protocol's completions, "
            f"{100 * adaptive['settled_early']:.1f}% of facts settled early"
        )
    kinds = table.protocol.get("categories")
    if kinds:
        lines.append("SliCK: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds.items()))
    return lines
