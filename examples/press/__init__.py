"""How the book is made out of the chapters and the source.

    python examples/book.py --help      says what it makes; begin there

    source.py      what stands where in the source: functions, their lines, their docstrings; code beside an equation
"""
