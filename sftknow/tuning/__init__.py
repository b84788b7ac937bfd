"""Fine-tuning with TRL on facts chosen by mastery."""
