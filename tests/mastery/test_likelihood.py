from collections import Counter

import numpy as np
import pytest
import torch
from probe_worlds import FACTS, RELATIONS, RIGHT, SCRIPT, NoAliases, make_fact
from scripted import TEMPERATURE, write_random, write_scripted

from sftknow.mastery.buckets import all_wrong
from sftknow.mastery.likelihood import AnswerScorer
from sftknow.mastery.probe import probe
from sftknow.mastery.table import ProbedFact
from sftknow.models import load_model, load_tokenizer


def scorer_of(folder, **options):
    return AnswerScorer(load_model(folder, dtype="float32"), load_tokenizer(folder), **options)


def enumerated(scorer, prompt, names, length, *, words=True):
    """Sum the probabilities of all token sequences of one length whose text begins with a name."""
    model, tokenizer = scorer._model, scorer._tokenizer
    start = tokenizer(prompt)["input_ids"]
    live, total = {(): 1.0}, Counter()
    for _ in range(length):
        longer = {}
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*start, *tokens] for tokens in live])).logits[:, -1].double()
        following = (logits / TEMPERATURE).softmax(-1).tolist()
        for (tokens, probability), distribution in zip(live.items(), following, strict=True):
            for token, p in enumerate(distribution):
                if token == 1:
                    total[tokens] += probability * p
                else:
                    longer[*tokens, token] = probability * p
        live = longer
    total.update(live)
    found = 0.0
    for tokens, probability in total.items():
        text = tokenizer.decode(list(tokens))
        starts = (text[len(f" {name}") :] for name in names if text.startswith(f" {name}"))
        found += probability * any(not (words and rest[:1].isalnum()) for rest in starts)
    return found


@pytest.mark.parametrize(
    "names", [["Rome"], ["Rome", "Paris"], ["Rome", "Rome is"], ["Rome is"], ["Bern was"], ["Lima", "Rome", "Rome"]]
)
@pytest.mark.parametrize("match", ["words", "substring"])
def test_it_is_the_sum_over_every_completion_that_begins_with_an_answer(tmp_path, names, match):
    scorer = scorer_of(write_random(tmp_path, seed=3), match=match)
    found = scorer.probabilities(["Anna was born in"], [names])[0]
    expected = enumerated(scorer, "Anna was born in", names, 3, words=match == "words")
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > 1e-8


@pytest.mark.parametrize("kind", ["sliding", "neox"])
def test_it_holds_for_other_architectures(tmp_path, kind):
    scorer = scorer_of(write_random(tmp_path, kind=kind))
    found = scorer.probabilities(["Anna was born in"], [["Rome is", "Paris"]])[0]
    assert found == pytest.approx(enumerated(scorer, "Anna was born in", ["Rome is", "Paris"], 3), rel=1e-4)


def test_tokens_that_end_a_name_within_them_count(tmp_path):
    script = {
        "in": {" Rome": 0.5, " Rome,": 0.2, " Romeo": 0.1, " Ro": 0.2},
        " Rome": {"s": 0.5, ".": 0.25, "</s>": 0.25},
    }
    scorer = scorer_of(write_scripted(tmp_path, {**script, " Ro": {"me": 1.0}}))
    # " Rome" before "." or the end, and " Rome,"; not "Romes" nor "Romeo"; " Ro"+"me" is the spelling left out.
    assert scorer.probabilities(["in"], [["Rome"]])[0] == pytest.approx(0.5 * 0.5 + 0.2, abs=1e-6)
    loose = scorer_of(tmp_path, match="substring")
    assert loose.probabilities(["in"], [["Rome"]])[0] == pytest.approx(0.5 + 0.2 + 0.1, abs=1e-6)


def test_batches_do_not_change_the_probabilities(tmp_path):
    folder = write_random(tmp_path)
    prompts = ["Anna was born in", "Rome is", "Lima was", "Bern is in Paris", "Otto is"]
    answers = [["Rome", "Paris is"], ["Bern"], ["Lima was born in"], ["Rome"], ["Paris", "Bern", "Lima"]]
    whole = scorer_of(folder).probabilities(prompts, answers)
    assert scorer_of(folder, batch_size=2).probabilities(prompts, answers) == pytest.approx(whole, rel=1e-5)
    alone = [scorer_of(folder).probabilities([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert alone == pytest.approx(whole, rel=1e-5)


def test_mastery_is_the_mean_over_templates_and_the_table_says_so(tmp_path):
    table = probe(
        write_scripted(tmp_path, SCRIPT), FACTS, RELATIONS, estimator="likelihood", aliases=NoAliases(), device="cpu"
    )
    first = {"Rome": (0.5, 0.05, 0.0), "Paris": (0.3, 0.9, 0.0), "Bern": (0.0, 0.0, 1.0)}
    for row in table.rows:
        wanted = first[row.fact.answers[0]]
        assert row.template_hits == pytest.approx(wanted, abs=1e-5)
        assert row.mastery == pytest.approx(np.mean(wanted), abs=1e-5)
        assert (row.hits, row.trials, row.template_trials) == (None, None, ())
        # An answer behind " the" comes late: this estimate misses it, as its documentation says.
        assert all(p <= r + 1e-5 for p, r in zip(row.template_hits, RIGHT[row.fact.answers[0]], strict=True))
    assert table.protocol["estimator"] == "likelihood"
    assert table.protocol["cost"]["completions"] == 0


def test_a_fact_that_sampling_would_miss_is_in_bucket_0():
    fact = make_fact("Anna", "Rome")
    for p, bucket in [(0.0, 0), (0.003, 0), (0.0034, 1), (0.25, 1), (0.2501, 2), (1.0, 4)]:
        assert ProbedFact.from_probabilities(fact, [p] * 21).bucket == bucket, p
    assert all_wrong([0.1, 0.5], 2) == pytest.approx(0.9**2 * 0.5**2)
    assert all_wrong([1.0, 0.5], 2) == 0.0
    spread = [1e-3 * n for n in range(3)]
    by_hand = np.prod([(1 - p) ** 10 for p in spread])
    assert all_wrong(spread, 10) == pytest.approx(by_hand)
