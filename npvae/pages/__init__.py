"""Web pages that open in any browser, without a network.  Not part of the lesson.

    report     report.html: the settings, metrics and pictures of a run
    explorer   explore.html: the decoder, to be explored in the browser
    explain    explain.html: one image goes through the network, and its gradient comes back
"""
from .explain import write_explain
from .explorer import write_explorer
from .report import write_report

__all__ = ["write_explain", "write_explorer", "write_report"]
