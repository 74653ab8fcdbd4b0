"""The models, in plain torch."""

from bsym_sklearn.model.brainsymphony import BrainSymphony, BrainSymphonyOutput
from bsym_sklearn.model.heads import TaskHead

__all__ = ["BrainSymphony", "BrainSymphonyOutput", "TaskHead"]
