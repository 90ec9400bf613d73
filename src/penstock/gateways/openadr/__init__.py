"""OpenADR 3.1: what the grid's operator asks of a site, and what the site reports back.

The API is that of the OpenADR Alliance's description of 3.1.0 (Apache-2.0); what its words mean is from the Definition
and the User Guide of the same release. `docs/grid.md` says what each signal does to a site.
"""

from penstock.gateways.openadr.client import Client
from penstock.gateways.openadr.credentials import Credentials, load
from penstock.gateways.openadr.report import Figures
from penstock.gateways.openadr.signals import Reading
from penstock.gateways.openadr.ven import Site, Ven

__all__ = ["Client", "Credentials", "Figures", "Reading", "Site", "Ven", "load"]
