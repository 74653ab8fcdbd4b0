"""Published supervised networks on fMRI series, in plain torch."""

from bsym_sklearn.model.rivals.bnt import BrainNetworkTransformer
from bsym_sklearn.model.rivals.braingnn import BrainGNN
from bsym_sklearn.model.rivals.brainnetcnn import BrainNetCNN
from bsym_sklearn.model.rivals.mean_mlp import MeanMLP
from bsym_sklearn.model.rivals.rival import Rival
from bsym_sklearn.model.rivals.transformer import TimePointTransformer

__all__ = [
    "BrainGNN",
    "BrainNetCNN",
    "BrainNetworkTransformer",
    "MeanMLP",
    "Rival",
    "TimePointTransformer",
]
