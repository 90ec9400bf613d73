"""Where price series come from: a file, an HTTP endpoint, a day-ahead market. `docs/prices.md` says what each does.

All sources are alike to whoever follows them (`Source`); `Newest` keeps the last good series while a source fails.
"""

from penstock.gateways.prices.file import FileSource
from penstock.gateways.prices.http import HttpSource
from penstock.gateways.prices.newest import Newest
from penstock.gateways.prices.source import Source, Vouched, source

__all__ = ["FileSource", "HttpSource", "Newest", "Source", "Vouched", "source"]
