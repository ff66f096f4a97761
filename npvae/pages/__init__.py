"""Web pages that open in any browser, without a network.  Beside the lesson.

    report     one page with the pictures and numbers of a run
    explorer   one page with the decoder inside
"""
from .explorer import write_explorer
from .report import write_report

__all__ = [
    "write_explorer", "write_report"]
