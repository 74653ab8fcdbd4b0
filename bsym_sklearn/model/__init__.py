"""The models, in plain torch."""

from bsym_sklearn.model.brain_jepa import BrainJEPA
from bsym_sklearn.model.brainlm import BrainLM
from bsym_sklearn.model.brainsymphony import BrainSymphony, BrainSymphonyOutput
from bsym_sklearn.model.collapse import between_scan_spread, effective_rank
from bsym_sklearn.model.heads import TaskHead

__all__ = [
    "BrainJEPA",
    "BrainLM",
    "BrainSymphony",
    "BrainSymphonyOutput",
    "TaskHead",
    "between_scan_spread",
    "effective_rank",
]
