"""Exercises of a notebook."""

from collections.abc import Sequence

from rlhf_lab.course.exercise import Exercise, Written

EXERCISES: Sequence[Exercise | Written] = ()
