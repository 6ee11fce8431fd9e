"""Is this mathematical answer the truth? The door is `grade.grade_math`.

Nothing is imported here, so that the killable child loads `opinion` and what it needs, and no more.
"""
