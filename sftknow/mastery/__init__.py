"""Mastery: how well a base model knows each fact, by sampling its completions."""
