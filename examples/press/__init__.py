"""How the book is made out of the chapters and the source.

    python examples/book.py --help      says what it makes; begin there

    source.py      what stands where in the source: functions, their lines, their docstrings; code beside an equation
    pandoc.py      Markdown and source as HTML, formulas as MathML
    site.py        the web site; page.html, book.css and book.js are around each of its pages
    api.py         the reference of npvae, from its docstrings
    notebooks.py   chapters and exercises as Jupyter notebooks
    check.py       no broken link, no formula left as it was typed
"""
