"""Files, the terminal and Ctrl-C.  Not part of the lesson."""
