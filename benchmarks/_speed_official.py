"""The official implementation, read from a checkout as it is.

Nothing of it is copied or changed. Facts on its code:
https://github.com/Moein-Khajehnejad/BrainSymphony at 1be0ae5.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from bsym_sklearn import load_reference_checkpoint
from bsym_sklearn.model import BrainSymphony

PACKAGE = "_official_brainsymphony"  # the name under which its modules are imported
DIM, N_HEADS, MLP_DIM = 128, 4, 512  # the defaults of its train.py
MAX_TIME_POINTS = 5000
N_LATENTS = 450  # written into its code
FUNCTIONAL = {
    "functional_v1/spatial.pth": "spatial",
    "functional_v1/temporal.pth": "temporal",
    "functional_v1/context.pth": "context",
    "functional_v1/fusion.pth": "perceiver",
}
STRUCTURAL = {"structural_v1/structural.pth": "encoder"}


def official_module(folder: Path, name: str) -> ModuleType:
    """Import a file of its folder models/.

    `import models` fails as published (models/layers/__init__.py lacks a name), so
    the package is an empty module that only knows where its files are. Nothing is
    written there, not even bytecode.
    """
    path = [str(folder / "models")]
    package = sys.modules.get(PACKAGE)
    if package is None or package.__path__ != path:
        for known in [n for n in sys.modules if n.split(".")[0] == PACKAGE]:
            del sys.modules[known]
        package = ModuleType(PACKAGE)
        package.__path__ = path
        sys.modules[PACKAGE] = package
        # a deprecated spelling of autocast, at every call
        warnings.filterwarnings("ignore", category=FutureWarning, module=PACKAGE)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        sys.dont_write_bytecode = writes


def official_fmri(
    folder: Path, n_regions: int, n_timepoints: int, depth: int
) -> nn.Module:
    """Return its fMRI model with weights drawn from a seed, in evaluation mode."""
    config = {
        "num_layers": depth,
        "dim": DIM,
        "num_heads": N_HEADS,
        "mlp_dim": MLP_DIM,
        "time_steps": n_timepoints,
        "max_len_spatial": n_regions + 50,  # as in its train.py
        "max_len_temp": MAX_TIME_POINTS,
    }
    functional = official_module(folder, "functional")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lazy layers are experimental
        torch.manual_seed(0)
        model = functional.BrainSymphonyFMRI(config)
        if n_regions != N_LATENTS:
            model.perceiver.latents = nn.Parameter(torch.randn(n_regions, DIM))
        with torch.no_grad():
            model.temporal(torch.zeros(1, n_regions, 1))  # gives lazy weights a shape
    return model.eval()


def official_structural(folder: Path, n_regions: int, depth: int) -> nn.Module:
    """Return its structural model with weights drawn from a seed, in evaluation."""
    config = {
        "rois": n_regions,
        "dim": DIM,
        "num_layers_struct": depth,
        "num_heads_struct": N_HEADS,
    }
    structural = official_module(folder, "structural")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = structural.BrainSymphonyStructural(config)
    return model.eval()


def with_its_weights(official: nn.Module) -> BrainSymphony:
    """Return our model with the weights of an official one, in evaluation mode."""
    files = FUNCTIONAL if hasattr(official, "perceiver") else STRUCTURAL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, part in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            torch.save(_tensors(official.get_submodule(part)), folder / file)
        return load_reference_checkpoint(folder)


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.state_dict())
