"""Run by nbgrader's Python: the points that nbgrader gave, as JSON, a row for each student and cell.

python nbgrader_scores.py sqlite:////path/to/gradebook.db
"""

import json
import sys

from nbgrader.api import Gradebook

with Gradebook(sys.argv[1]) as book:
    notebooks = [notebook for submission in book.assignments[0].submissions for notebook in submission.notebooks]
    grades = [grade for notebook in notebooks for grade in notebook.grades]
    rows = [[grade.student.id, grade.notebook.name, grade.cell.name, grade.auto_score] for grade in grades]
print(json.dumps(rows))
