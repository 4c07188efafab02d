"""``astrocyte verify``: whether everything that should be in topics and stores is there, once, as it should be."""

from astrocyte.pipeline.analysis.verify.outputs import Span
from astrocyte.pipeline.analysis.verify.report import Change, Difference, Place, Verification
from astrocyte.pipeline.analysis.verify.run import EVERYWHERE, Places, verify

__all__ = ["EVERYWHERE", "Change", "Difference", "Place", "Places", "Span", "Verification", "verify"]
