"""The embedded laboratory: a small world of facts and a small LLaMA pretrained on it."""
