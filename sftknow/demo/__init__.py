"""The whole method on the embedded laboratory: facts, mastery, fine-tunings, KL, restoration, scores, report."""
