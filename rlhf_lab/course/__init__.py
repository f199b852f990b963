"""The course: exercises, checks, release and grading."""
