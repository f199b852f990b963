"""Stages: what each starts from, what it learns from, how. One optimizer step, loops that share no base class."""
