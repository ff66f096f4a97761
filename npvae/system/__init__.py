"""What the program meets outside: files, the terminal, Ctrl-C.  Not part of the lesson.
"""
