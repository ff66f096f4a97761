"""What course.py asks of an answer.

    answers.py     a student's file; is what a function returned the right kind of thing, and are its numbers right?
    child.py       runs the checks of one file, in a process of its own
    parent.py      starts that process, and ends it when it takes too long
    chapters.py    all exercises, with minutes, difficulty and a hint
    model.py ... training.py      the checks, a file for each chapter

A check never compares with a solution: it compares with the complex step, a sum over all images, a quadrature, or the
same computation number by number.
"""
