"""The question-answer prompt that fine-tuning, scoring and the lm-eval tasks share.

The markers are plain text: no token is added to the vocabulary, so base and tuned models keep the same shapes.
"""

PROMPT = "<|question|> {question} <|answer|>"
COMPLETION = " {answer} "


def question_prompt(question: str) -> str:
    """Return the prompt of the paper's fine-tuning and test format, without the BOS token."""
    return PROMPT.format(question=question)


def answer_completion(answer: str) -> str:
    """Return the target that follows the prompt, without the EOS token that the trainer appends."""
    return COMPLETION.format(answer=answer)
