from sftknow.models import load_tokenizer
from sftknow.prompts import question_prompt


def test_bos_stands_before_every_text_and_eos_after_every_row(micro_rows):
    tokenizer, phases = micro_rows
    for row in phases[1][:20]:
        assert row[0] == tokenizer.bos_token_id
        assert row[-1] == tokenizer.eos_token_id
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} & set(row[1:-1])


def test_any_text_survives_encoding(tiny_lab):
    tokenizer = load_tokenizer(tiny_lab.folder)
    for text in ("Zoë's café, 東京 – ½\n", question_prompt("Where was Ålvik born?"), "  two  spaces "):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_lm_eval_and_plain_calls_see_one_bos(tiny_lab):
    from lm_eval.models.huggingface import HFLM

    from sftknow.models import load_model

    tokenizer = load_tokenizer(tiny_lab.folder)
    harness = HFLM(pretrained=load_model(tiny_lab.folder), tokenizer=tokenizer, batch_size=2)
    prompt = question_prompt("Where was Kumpen born?")
    plain = tokenizer(prompt)["input_ids"]
    assert harness.tok_encode(prompt) == plain
    assert harness.tok_batch_encode([prompt])[0][0].tolist() == plain
    assert plain.count(tokenizer.bos_token_id) == 1


def test_prompt_and_completion_are_cut_where_the_trainer_cuts_them(tiny_lab):
    tokenizer = load_tokenizer(tiny_lab.folder)
    prompt = question_prompt("Where was Kumpen born?")
    whole = tokenizer(prompt + " Zhawulus ")["input_ids"]
    start = tokenizer(prompt)["input_ids"]
    assert whole[: len(start)] == start
