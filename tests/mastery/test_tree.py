import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scripted import TEMPERATURE, write_random, write_scripted

from sftknow.mastery.sample import Request
from sftknow.mastery.streams import stream_key, uniforms
from sftknow.mastery.tree import TreeSampler, draw
from sftknow.models import load_model, load_tokenizer

PROMPTS = ["Anna was born in", "Otto was born in", "Rome is", "Lima", "Bern is in Paris"]
SCRIPT = {
    "in": {" Rome": 0.5, " Paris": 0.3, " the": 0.2},
    " Rome": {"</s>": 0.6, " is": 0.4},
    " Paris": {"</s>": 1.0},
    " the": {" Rome": 0.25, " Paris": 0.75},
    " is": {"</s>": 0.5, " Rome": 0.5},
}


class Nobody:
    """Counts no text as right, so that samples run to their end."""

    def right(self, prompts, texts, ended):
        return [False] * len(texts)


class Holds:
    def __init__(self, word):
        self.word = word

    def right(self, prompts, texts, ended):
        return [self.word in text for text in texts]


def sampler_of(folder, **options):
    model = load_model(folder, dtype="float32")
    return TreeSampler(model, load_tokenizer(folder), **{"max_new_tokens": 8, **options})


def texts_of(sampler, requests, judge=None):
    found = {(prompt, index): text for prompt, index, text, _ in sampler.samples(requests, judge or Nobody())}
    assert len(found) == sum(request.count for request in requests)
    return found


def requests_of(prompts, **options):
    return [Request(prompt, stream_key(0, prompt), **options) for prompt in prompts]


def paths(script, token, room):
    """Every completion of at most ``room`` tokens with its probability, from the script alone."""
    if room == 0:
        return {"": 1.0}
    found = Counter()
    for following, probability in script[token].items():
        if following == "</s>":
            found[""] += probability
            continue
        for rest, below in paths(script, following, room - 1).items():
            found[following + rest] += probability * below
    return found


def test_samples_follow_the_scripted_distribution(tmp_path):
    sampler = sampler_of(write_scripted(tmp_path, SCRIPT), max_new_tokens=4)
    drawn = Counter(texts_of(sampler, [Request("in", 11, count=20000)]).values())
    expected = {text: 20000 * probability for text, probability in paths(SCRIPT, "in", 4).items()}
    assert set(drawn) <= set(expected)
    square = sum((drawn[text] - count) ** 2 / count for text, count in expected.items())
    freedom = len(expected) - 1
    assert square < freedom + 4 * np.sqrt(2 * freedom), (square, freedom)


def test_the_tree_draws_as_transformers_generate_does(tmp_path):
    sampler = sampler_of(write_random(tmp_path), max_new_tokens=2)
    count = 8000
    tree = Counter(texts_of(sampler, [Request("Anna was born in", 3, count=count)]).values())
    ids = sampler.tokenizer(["Anna was born in"] * count, return_tensors="pt")
    torch.manual_seed(0)
    out = sampler.model.generate(
        **ids, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=2, min_new_tokens=0
    )
    texts = sampler.tokenizer.batch_decode(out[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    alone = Counter(texts)
    common = [text for text in tree | alone if tree[text] + alone[text] >= 20]
    square = sum((tree[text] - alone[text]) ** 2 / (tree[text] + alone[text]) for text in common)
    assert len(common) > 20
    assert square < len(common) + 4 * np.sqrt(2 * len(common)), (square, len(common))


@pytest.mark.parametrize("kind", ["llama", "sliding", "neox"])
def test_every_sample_is_what_it_would_be_drawn_alone_without_a_cache(tmp_path, kind):
    sampler = sampler_of(write_random(tmp_path, kind=kind))
    together = texts_of(sampler, requests_of(PROMPTS, count=6))
    for (prompt, index), text in together.items():
        assert text == _replayed(sampler, PROMPTS[prompt], index), (prompt, index)


def _replayed(sampler, prompt, index):
    ids = sampler.tokenizer(prompt)["input_ids"]
    start, key = len(ids), np.array([stream_key(0, prompt)], dtype=np.uint64)
    for step in range(sampler.max_new_tokens):
        with torch.inference_mode():
            logits = sampler.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        mass = np.cumsum(np.exp((logits.double().numpy() - logits.max().item()) / TEMPERATURE))
        token = int(np.searchsorted(mass, uniforms(key, np.array([index]), step)[0] * mass[-1], side="right"))
        if token == 1:
            break
        ids.append(token)
    return sampler.tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_batches_and_the_order_of_requests_do_not_change_the_samples(tmp_path):
    folder = write_random(tmp_path)
    whole = texts_of(sampler_of(folder, batch_size=512), requests_of(PROMPTS, count=10))
    divided = texts_of(sampler_of(folder, batch_size=5), requests_of(PROMPTS, count=10))
    turned = texts_of(sampler_of(folder), requests_of(PROMPTS[::-1], count=10))
    assert whole == divided
    assert whole == {(len(PROMPTS) - 1 - prompt, index): text for (prompt, index), text in turned.items()}


def test_samples_asked_for_one_by_one_are_those_asked_for_together(tmp_path):
    sampler = sampler_of(write_random(tmp_path))
    whole = texts_of(sampler, requests_of(PROMPTS[:2], count=10))
    for index in range(10):
        alone = texts_of(sampler, requests_of(PROMPTS[:2], first=index, count=1))
        assert alone == {(prompt, index): whole[prompt, index] for prompt in (0, 1)}


def test_sharing_prefixes_costs_fewer_rows_than_samples(tmp_path):
    sampler = sampler_of(write_scripted(tmp_path, SCRIPT), max_new_tokens=4)
    texts_of(sampler, [Request("in", 5, count=100)])
    assert sampler.cost.completions == 100
    assert sampler.cost.branch_tokens <= 3 + 4 + 4
    assert sampler.cost.sampled_tokens > 200


def test_a_right_sample_stops_and_a_wrong_one_runs_to_its_end(tmp_path):
    sampler = sampler_of(write_scripted(tmp_path, SCRIPT), max_new_tokens=4)
    found = list(sampler.samples([Request("in", 5, count=200)], Holds(" Rome")))
    assert {text for _, _, text, right in found if right} == {" Rome", " the Rome"}
    assert {text for _, _, text, right in found if not right} == {" Paris", " the Paris"}
    outcomes = sampler.outcomes([Request("in", 5, first=50, count=100)], Holds(" Rome"))
    assert outcomes[0].tolist() == [right for _, index, _, right in sorted(found) if 50 <= index < 150]


def test_a_newline_ends_a_sample_only_where_asked(tmp_path):
    script = {"in": {" Rome": 1.0}, " Rome": {"\n": 1.0}, "\n": {" Paris": 1.0}}
    folder = write_scripted(tmp_path, script)
    requests = [Request("in", 1, count=3)]
    assert set(texts_of(sampler_of(folder), requests).values()) == {" Rome\n Paris"}
    assert set(texts_of(sampler_of(folder, stop_newline=True), requests).values()) == {" Rome"}


@pytest.mark.parametrize("kind", ["llama", "sliding", "neox"])
def test_greedy_is_transformers_greedy(tmp_path, kind):
    sampler = sampler_of(write_random(tmp_path, kind=kind), temperature=0)
    texts = texts_of(sampler, requests_of(PROMPTS, count=1))
    for number, prompt in enumerate(PROMPTS):
        ids = sampler.tokenizer(prompt, return_tensors="pt")
        out = sampler.model.generate(**ids, do_sample=False, max_new_tokens=8)
        plain = sampler.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert texts[number, 0] == plain


def test_top_k_draws_from_the_most_probable_tokens_only(tmp_path):
    sampler = sampler_of(write_scripted(tmp_path, SCRIPT), max_new_tokens=1, top_k=2)
    drawn = Counter(texts_of(sampler, [Request("in", 5, count=4000)]).values())
    assert set(drawn) == {" Rome", " Paris"}
    assert abs(drawn[" Rome"] / 4000 - 0.5 / 0.8) < 4 * np.sqrt(0.625 * 0.375 / 4000)


def test_drawing_inverts_the_cumulative_distribution_at_its_edges():
    probabilities = torch.zeros(2, 200)
    probabilities[0, [3, 70, 199]] = torch.tensor([0.25, 0.5, 0.25])
    probabilities[1, 64] = 1.0
    numbers = np.array([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53, 0.0, 1 - 2**-53])
    rows = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    assert draw(probabilities, rows, numbers).tolist() == [3, 3, 70, 70, 199, 199, 64, 64]


def test_a_token_of_probability_zero_is_never_drawn():
    probabilities = torch.zeros(1, 130)
    probabilities[0, [0, 129]] = 0.5
    numbers = np.linspace(0, 1, 10001, endpoint=False)
    drawn = draw(probabilities, np.zeros(10001, dtype=int), numbers)
    assert set(drawn.tolist()) == {0, 129}
    assert list(itertools.pairwise(drawn)) == sorted(itertools.pairwise(drawn))
