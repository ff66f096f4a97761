"""The solutions of the exercises.  Each file has the functions of the file of the same name one folder up; a test holds
the two together, and every check against both."""
