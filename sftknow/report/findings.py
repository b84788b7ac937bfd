"""The paper's five findings, and one question beyond it, each as a test written down before any result was seen.

The rule common to all is :data:`sftknow.report.verdicts.RULE`; each function adds what it compares. Percents to compare
at were fixed beforehand too (20 percent, where the paper's gains peak or nearly do), never picked for the best result.
"""

from collections.abc import Sequence

from sftknow.report.paper import PAPER
from sftknow.report.results import DOMAINS, Results
from sftknow.report.run_parts import divergence_part, divergences, mean_accuracy, runs_part, slope_part
from sftknow.report.statistics import spread
from sftknow.report.sweep_parts import common_percent, control_part, gain_part, loss_part, more_part, shape_part
from sftknow.report.verdicts import (
    FAILS,
    HOLDS,
    IN_WORDS,
    OPEN,
    Finding,
    Part,
    basis,
    combine,
    contradicts,
    count,
    difference,
    nats,
    percent,
)

TOP_SHARE = 5.0
LEAST_SHARE_OF_R = 0.5


def findings(results: Results) -> tuple[Finding, ...]:
    """Judge all findings on a set of results, finished or not."""
    return tuple(
        rule(results)
        for rule in (
            low_mastery_is_worse,
            more_samples_harm,
            divergence_grows,
            updates_are_concentrated,
            restoration_helps,
            largest_first_beats_random,
        )
    )


def low_mastery_is_worse(results: Results) -> Finding:
    """At the large size, does tuning on the lowest bucket leave lower accuracy than tuning on the highest?"""
    key, title = "low-mastery", "Tuning on facts the model did not know leaves it less accurate"
    rule = (
        "Accuracy after tuning on the highest bucket minus the lowest, at the largest common size; in domain decides."
    )
    pair = _extremes(results)
    shared = [n for n in results.sizes if pair and all(results.cell(bucket, n) for bucket in pair)]
    if not pair or not shared:
        return _not_yet(key, title, rule, "fine-tunings on a low and a high bucket at one size")
    (low, high), n = pair, shared[-1]
    parts = [
        runs_part(results, domain, results.cell(high, n), results.cell(low, n), IN_WORDS[domain]) for domain in DOMAINS
    ]
    numbers = [
        f"{percent(mean_accuracy(results.cell(low, n), domain))} and "
        f"{percent(mean_accuracy(results.cell(high, n), domain))} {IN_WORDS[domain]} ({part.text})"
        for domain, part in zip(DOMAINS, parts, strict=True)
    ]
    text = f"with {n:,} samples, tuning on buckets {low} and {high} leaves {numbers[0]}, {numbers[1]}"
    return _finding(key, title, rule, parts, text)


def more_samples_harm(results: Results) -> Finding:
    """Does accuracy fall from the small to the large size when the data are of the lowest bucket?"""
    key, title = "more-harms", "More samples of unknown facts can harm"
    rule = "Accuracy at the smallest size minus the largest, both tuned on the lowest bucket; in domain decides."
    low = results.buckets[0] if results.buckets else None
    sizes = [n for n in results.sizes if low is not None and results.cell(low, n)]
    if low is None or len(sizes) < 2:
        return _not_yet(key, title, rule, "two sizes of fine-tuning on the low bucket")
    small, large = sizes[0], sizes[-1]
    parts = [
        runs_part(results, domain, results.cell(low, small), results.cell(low, large), IN_WORDS[domain])
        for domain in DOMAINS
    ]
    numbers = [
        f"{percent(mean_accuracy(results.cell(low, small), domain))} to "
        f"{percent(mean_accuracy(results.cell(low, large), domain))} {IN_WORDS[domain]} "
        f"({_reversed(part)})"
        for domain, part in zip(DOMAINS, parts, strict=True)
    ]
    text = f"from {small:,} to {large:,} samples of bucket {low}, accuracy goes from {numbers[0]}, {numbers[1]}"
    return _finding(key, title, rule, parts, text)


def divergence_grows(results: Results) -> Finding:
    """Does KL grow with size, most for low mastery, and does accuracy on well-mastered facts fall as it rises?"""
    key, title = "divergence", "The model drifts further with more samples, most on unknown facts"
    rule = (
        "Three parts, all of which decide: KL at the largest minus the smallest size, lowest bucket; that growth minus "
        "the highest bucket's; and the fall of accuracy on test bucket 4 along the range of KL seen, by a straight "
        "line through all runs with an intercept for each training bucket."
    )
    pair = _extremes(results)
    if not pair:
        return _not_yet(key, title, rule, "KL of fine-tunings on two buckets")
    sizes = [n for n in results.sizes if all(divergences(results, bucket, n) for bucket in pair)]
    if len(sizes) < 2:
        return _not_yet(key, title, rule, "KL at two sizes on a low and a high bucket")
    (low, high), small, large = pair, sizes[0], sizes[-1]
    growth = divergence_part(results, "KL grows on the lowest bucket", [(low, large)], [(low, small)])
    most = divergence_part(
        results, "more than on the highest", [(low, large), (high, small)], [(low, small), (high, large)]
    )
    parts = [growth, most, slope_part(results)]
    values = {(b, n): nats(spread(divergences(results, b, n)).mean) for b in pair for n in (small, large)}
    text = (
        f"from {small:,} to {large:,} samples KL goes from {values[low, small]} to {values[low, large]} nats "
        f"on bucket {low} ({growth.text}) and from {values[high, small]} to {values[high, large]} on bucket "
        f"{high} (a growth smaller by {most.text.lstrip('+')}); {parts[2].text}"
    )
    return _finding(key, title, rule, parts, text, facts="fact", unit="nats")


def updates_are_concentrated(results: Results) -> Finding:
    """Do the top few percent of parameters carry most of r, and can many be undone without loss?"""
    key, title = "concentration", "A few parameters carry most of the relative change, and much can be undone freely"
    rule = (
        "Two parts, both of which decide: the top 5 percent carry at least half of all r in every fine-tuning; and "
        "undoing the top 20 percent, largest first, loses no more than 2 points in domain, margin included, on any "
        "bucket swept."
    )
    shares = [found.share_of_r[TOP_SHARE] for found in results.concentration if TOP_SHARE in found.share_of_r]
    if not shares:
        return _not_yet(key, title, rule, "the concentration of r")
    least = min(shares)
    verdict = HOLDS if least >= LEAST_SHARE_OF_R else FAILS
    share_text = (
        f"the top {TOP_SHARE:g}% of parameters carry {_share_range(shares)} of all r "
        f"in {count(len(shares), 'fine-tuning')}"
    )
    parts = [Part(f"top {TOP_SHARE:g}% carry half of r", verdict, share_text)]
    undone = _change_at(results)
    if undone:
        share_text += f" ({undone})"
    losses = [loss_part(results, bucket) for bucket in results.buckets if results.sweeps_of(bucket, "top")]
    if not losses:
        parts.append(Part("undone without loss", OPEN, "no restoration sweep yet"))
        return _finding(key, title, rule, parts, f"{share_text}; {parts[-1].text}")
    parts.extend(losses)
    lost = " and ".join(part.text for part in losses)
    return _finding(key, title, rule, parts, f"{share_text}; undoing the top 20% changes accuracy in domain by {lost}")


def restoration_helps(results: Results) -> Finding:
    """Does undoing the largest relative updates after low-mastery tuning help, more than after high-mastery tuning?"""
    key, title = "restoration", "Undoing the largest relative updates repairs low-mastery tuning"
    rule = (
        "The gain in accuracy in domain from undoing the top 20 percent after tuning on the lowest bucket, and that "
        "gain minus the highest bucket's: both decide. The inverted U (the rise to the best percent or the fall "
        "from it to the last, whichever is smaller, its margin widened for the choice of the best) is judged too, but "
        "does not decide: it hangs on how far the sweep goes."
    )
    low, high = _extremes(results) or (results.buckets[0] if results.buckets else None, None)
    sweeps = results.sweeps_of(low, "top") if low is not None else ()
    at = common_percent(sweeps)
    if low is None or at is None:
        return _not_yet(key, title, rule, "a largest-first sweep on the low bucket")
    parts = [gain_part(results, low, at, domain) for domain in DOMAINS]
    more = more_part(results, low, high, at) if high is not None else None
    parts.append(more or Part("more than on the highest bucket", OPEN, "no sweep on a high bucket yet"))
    shape = shape_part(results, low)
    parts.extend([shape] if shape else [])
    text = (
        f"undoing the top {at:g}% after tuning on bucket {low} moves accuracy from {parts[0].text}, {parts[1].text}; "
        + "; ".join(part.text for part in parts[2:])
    )
    return _finding(key, title, rule, parts, text)


def largest_first_beats_random(results: Results) -> Finding:
    """At equal share of total change undone, is largest-first more accurate than random restoration?"""
    key, title = "largest-first", "Largest-first restoration beats random at equal change undone"
    rule = (
        "Largest-first undoes more change than random at an equal percent, so its accuracy at 20 percent is compared "
        "with the random curve read, by straight lines between its steps, at the same share of all change undone; the "
        "lowest bucket in domain decides. The paper compares at equal percent only."
    )
    parts: list[Part] = []
    texts: list[str] = []
    for bucket in results.buckets:
        decides = bucket == results.buckets[0]
        found = [control_part(results, bucket, name, decides=decides and name == "in_domain") for name in DOMAINS]
        there = [part for part in found if part is not None]
        parts.extend(there)
        if there:
            texts.append(f"after tuning on bucket {bucket}, {', '.join(part.text for part in there)}")
    if not any(part.decides for part in parts):
        return _not_yet(key, title, rule, "a largest-first and a random sweep on the low bucket")
    text = f"largest-first at 20% against random at the same share of change undone: {'; '.join(texts)}"
    return _finding(key, title, rule, parts, text)


def _not_yet(key: str, title: str, rule: str, needs: str) -> Finding:
    return Finding(key, title, rule, OPEN, f"Not yet: this needs {needs}.", (), PAPER.get(key))


def _finding(
    key: str, title: str, rule: str, parts: Sequence[Part], text: str, *, unit: str = "points", facts: str = "test fact"
) -> Finding:
    measured = next((part.measured for part in parts if part.measured is not None), None)
    verdict = combine(parts)
    rests_on = f"; {basis(measured, unit, facts)}" if measured is not None else ""
    sentence = f"{text[0].upper()}{text[1:]}{rests_on}{_reason(parts, verdict)}."
    return Finding(key, title, rule, verdict, sentence, tuple(parts), PAPER.get(key))


def _reason(parts: Sequence[Part], verdict: str) -> str:
    """Say why a finding does not hold or cannot be told, by the parts that are to blame."""
    if verdict == HOLDS:
        return ""
    if any(part.measured is not None and part.measured.margin is None for part in parts):
        return "; one seed cannot tell"
    deciding = [part for part in parts if part.decides]
    if opposite := [part.label for part in parts if contradicts(part)]:
        return f"; the opposite shows ({', '.join(opposite)})"
    blamed = [part.label for part in deciding if part.verdict == verdict]
    word = "it does not show" if verdict == FAILS else "too close to tell"
    return f"; {word}" if len(deciding) == 1 else f"; {word}: {', '.join(blamed)}"


def _reversed(part: Part) -> str:
    """Write a fall as a negative change."""
    return difference(part.measured, sign=-1) if part.measured is not None else part.text


def _extremes(results: Results) -> tuple[int, int] | None:
    buckets = results.buckets
    return (buckets[0], buckets[-1]) if len(buckets) > 1 else None


def _share_range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _change_at(results: Results) -> str | None:
    steps = [sweep.at(TOP_SHARE) for sweep in results.sweeps if sweep.strategy == "top"]
    shares = [step.change_undone for step in steps if step is not None and step.change_undone is not None]
    return f"but {_share_range(shares)} of the sum of absolute changes" if shares else None
