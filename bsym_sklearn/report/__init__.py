"""One self-contained HTML page about a fitted model and the scans it is shown."""

from bsym_sklearn.report.page import make_report

__all__ = ["make_report"]
