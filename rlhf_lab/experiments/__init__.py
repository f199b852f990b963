"""Whole studies built from the stages below: the TL;DR job, its report, and the sweeps of the results page."""
