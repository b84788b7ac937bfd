"""Restoration: undo chosen parameter updates of a fine-tuning, exactly and in bounded memory."""
