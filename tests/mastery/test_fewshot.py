import pytest
from probe_worlds import NoAliases, make_fact
from scripted import write_scripted

from sftknow.errors import DataError
from sftknow.mastery.fewshot import ExactJudge, category, fewshot_items
from sftknow.mastery.probe import probe
from sftknow.mastery.table import read_mastery

# What follows "A:" behind any prompt; greedy answers Rome.
SCRIPT = {
    ":": {" Rome": 0.6, " Paris": 0.399, " Bern": 0.001},
    " Rome": {"\n": 1.0},
    " Paris": {"\n": 0.5, " Rome": 0.5},
    "\n": {"A": 1.0},
    "Q": {":": 1.0}, "A": {":": 1.0}, "?": {"\n": 1.0},
}  # fmt: skip
SUBJECTS = ("Anna", "Otto", "Lima", "Bern", "Nina", "Paul")


def facts_of(answer, split="train"):
    return [make_fact(subject, answer, split) for subject in SUBJECTS]


def run(tmp_path, facts, **options):
    folder = tmp_path / "model"
    if not folder.exists():
        write_scripted(folder, SCRIPT)
    return probe(folder, facts, {}, estimator="fewshot", aliases=NoAliases(), device="cpu", **options)


@pytest.mark.parametrize(
    ("greedy", "sampled", "kind"),
    [
        (10, 0, "HighlyKnown"),
        (10, 9, "HighlyKnown"),
        (9, 3, "MaybeKnown"),
        (1, 0, "MaybeKnown"),
        (0, 1, "WeaklyKnown"),
        (0, 0, "Unknown"),
    ],
)
def test_categories_by_their_definition(greedy, sampled, kind):
    assert category(greedy, 10, sampled) == kind


def test_a_scripted_model_lands_in_its_categories_and_buckets(tmp_path):
    facts = [*facts_of("Rome"), *facts_of("Paris"), *facts_of("Lima")]
    table = run(tmp_path, facts, samples=100)
    # At temperature 0.5 instead of 0.7 the script's probabilities are raised to 1.4 and scaled again.
    weights = [p**1.4 for p in (0.6, 0.399, 0.001)]
    rome = weights[0] / sum(weights)
    paris = weights[1] / sum(weights) / 2
    for row in table.rows:
        answer = row.fact.answers[0]
        assert row.category == {"Rome": "HighlyKnown", "Paris": "WeaklyKnown", "Lima": "Unknown"}[answer]
        assert row.trials == 1000 and len(row.template_hits) == 10
        assert row.mastery == pytest.approx({"Rome": rome, "Paris": paris, "Lima": 0}[answer], abs=0.07)
    assert table.protocol["categories"] == {"HighlyKnown": 6, "MaybeKnown": 0, "WeaklyKnown": 6, "Unknown": 6}
    assert table.protocol["temperature"] == 0.5
    table.write(tmp_path / "table")
    assert read_mastery(tmp_path / "table").rows == table.rows


def test_exemplars_are_four_other_train_facts_of_the_relation_with_their_answers():
    facts = [*facts_of("Rome"), *facts_of("Paris", "test"), make_fact("Anna", "Bern", relation="school")]
    others = [make_fact(name, "Bern", relation="school") for name in ("A", "B", "C", "D")]
    items = fewshot_items([*facts, *others], [fact.answers for fact in [*facts, *others]], 0, 10)
    for fact, item in zip(facts[:12], items[:12], strict=True):
        assert len(set(item.prompts)) > 5
        for prompt in item.prompts:
            *shots, last = prompt.split("\n\n")
            assert last == f"Q: {fact.question}\nA:"
            assert len(set(shots)) == 4
            assert all(shot.endswith("\nA: Rome") and fact.question not in shot for shot in shots)
    assert "Bern" in items[12].prompts[0] and "Rome" not in items[12].prompts[0]
    again = fewshot_items([*others, *facts[::-1]], [fact.answers for fact in [*others, *facts[::-1]]], 0, 10)
    assert again[-1] == items[0]


def test_only_whole_answers_count():
    judge = ExactJudge([("Rome",)])
    texts = [" Rome", " the Rome.", " Rome in Italy", " Paris", " Rome"]
    assert judge.right([0] * 5, texts, [True] * 4 + [False]) == [True, True, False, False, False]


def test_too_few_facts_for_exemplars_are_refused(tmp_path):
    with pytest.raises(DataError, match="relation birth has 3 other facts"):
        run(tmp_path, facts_of("Rome")[:4])
