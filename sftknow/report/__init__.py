"""Figures and one self-contained HTML page, made from the records alone."""
