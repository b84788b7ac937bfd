import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from sftknow.errors import DataError
from sftknow.models import load_model, load_tokenizer
from sftknow.tuning.data import check_answers_fit, tokenized_rows, training_rows


def test_rows_are_those_of_trls_own_preparation(base, facts, tmp_path):
    rows = training_rows(facts[:12])
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=None)
    trainer = SFTTrainer(
        model=load_model(base),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(base),
    )
    ours = tokenized_rows(rows, load_tokenizer(base))
    theirs = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in trainer.train_dataset]
    assert ours == theirs


def test_only_answer_tokens_and_eos_carry_loss(base, facts):
    tokenizer = AutoTokenizer.from_pretrained(base)
    fact = facts[0]
    (row,) = tokenized_rows(training_rows([fact]), tokenizer)
    carried = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(carried) == f" {fact.answers[0]} </s>"
    assert tokenizer.decode(row["input_ids"]) == f"<s><|question|> {fact.question} <|answer|> {fact.answers[0]} </s>"
    start = len(row["labels"]) - len(carried)
    assert row["labels"] == [-100] * start + row["input_ids"][start:]


def test_the_prompt_of_a_row_is_the_prompt_of_a_test(base, facts):
    """What the model reads before the answer in training is what it reads in scoring, token for token."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    (row,) = tokenized_rows(training_rows(facts[:1]), tokenizer)
    prompt = tokenizer(f"<|question|> {facts[0].question} <|answer|>")["input_ids"]
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [-100] * len(prompt)


def test_every_token_carries_loss_when_asked(base, facts):
    (row,) = tokenized_rows(training_rows(facts[:1]), AutoTokenizer.from_pretrained(base), completion_only=False)
    assert row["labels"] == row["input_ids"]


def test_a_row_that_would_lose_its_answer_is_an_error(base, facts):
    rows = tokenized_rows(training_rows(facts[:8]), load_tokenizer(base))
    longest = max(len(row["input_ids"]) for row in rows)
    check_answers_fit(rows, facts[:8], longest)
    check_answers_fit(rows, facts[:8], None)
    with pytest.raises(DataError, match=rf"max_length {longest - 1} would cut .* set max_length to {longest} or more"):
        check_answers_fit(rows, facts[:8], longest - 1)
