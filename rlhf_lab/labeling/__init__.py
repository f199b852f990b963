"""Asking people: front ends for the notebook, the store that keeps their labels, and what the labels are worth."""
