"""Missing days: every way in which a stage says that what it needs of a day is not there."""

from vibes_pipelines.stages.project import WrongDayError
from vibes_pipelines.stages.reconciling import NotLandedError, NotReconciledError
from vibes_pipelines.vibes.extracts import ExtractMissing

MISSING = (NotLandedError, NotReconciledError, WrongDayError, ExtractMissing)
