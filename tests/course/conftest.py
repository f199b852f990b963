collect_ignore = ["nbgrader_scores.py"]  # Run by nbgrader's own Python, where nbgrader is.
