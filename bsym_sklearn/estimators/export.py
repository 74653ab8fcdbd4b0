"""Fitted estimators as files that other programs run: torch.export and ONNX.

Shape letters: B scans, T time points, R regions.
"""

from __future__ import annotations

import io
import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch.export import Dim, ExportedProgram

from bsym_sklearn.estimators.graph import Output, ScanGraph, output_of
from bsym_sklearn.files import write_atomically
from bsym_sklearn.model.layers import check_choice
from bsym_sklearn.version import __version__

FORMATS = {".pt2": "torch", ".onnx": "onnx"}
INPUTS = ("raw", "scaled")
DESCRIPTION = "bsym_sklearn.json"  # name of the description in a file
BATCH = "batch"  # name of the dimension that may have any size
TRACES = ("stack_trace", "from_node")  # what would name files of this machine
NEEDS_TORCH = "2.7"  # the first to say when it draws a graph


def export_graph(
    estimator: Any,
    path: str | Path,
    *,
    format: str | None = None,
    modalities: str = "auto",
    inputs: str = "raw",
) -> dict[str, Any]:
    """Write a fitted estimator as a graph that runs without this package.

    The graph holds the weights and does, for any number of scans, what `transform`,
    `predict_proba` or `predict` does for scans of one window: scaling, the network and
    the pooling. Outside of it remain reading and checking of scans, resampling to the
    repetition time of the model, cutting into windows, and averaging over those of a
    scan.

    Parameters
    ----------
    estimator : BrainSymphonyEmbedder, BrainSymphonyClassifier or \
BrainSymphonyRegressor
        Fitted.
    path : str or Path
        File to write, as a whole or not at all.
    format : {"torch", "onnx"} or None, default=None
        ``torch.export``, or ONNX with the weights inside, which needs the extra
        ``onnx``. None goes by the suffix, ``.pt2`` or ``.onnx``.
    modalities : {"auto", "fmri", "sc", "both"}, default="auto"
        Inputs of the graph, which all have to be given; ``"auto"`` takes those of the
        model. A model of both also works on one: that is another graph.
    inputs : {"raw", "scaled"}, default="raw"
        Whether the scaling is a part of the graph. It then sees one window: of a longer
        scan, which `transform` scales as a whole, give scaled windows.

    Returns
    -------
    dict
        Description of the graph, which is also in the file: inputs and output with
        names, shapes and types, names of regions and of columns of the output, window
        and repetition time (s), versions.

    Raises
    ------
    ImportError
        If ONNX is wanted and its packages are not there, or torch is too old.
    TypeError
        If the estimator is not one of the three.
    ValueError
        If a parameter is unknown, the model lacks a modality, or ONNX has no operators
        for it.

    Notes
    -----
    Inputs are of the type of the model (float32, unless ``dtype="float64"``).

    Loading a ``.pt2`` file with ``torch.export.load`` can run code that is in it: open
    only your own. An ONNX file holds no code.

    Examples
    --------
    >>> import tempfile
    >>> from bsym_sklearn import BrainSymphonyEmbedder
    >>> from bsym_sklearn.data import make_cohort
    >>> X = make_cohort(6, 5, 30).data.drop(columns="fmri")
    >>> model = BrainSymphonyEmbedder(dim=8, depth=1, max_epochs=1, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     about = export_graph(model.fit(X), f"{folder}/embedder.pt2")
    >>> about["inputs"]
    {'sc': {'shape': ['batch', 5, 5], 'dtype': 'float32'}}
    """
    check_is_fitted(estimator)
    path = Path(path)
    wanted = _format(path, format)
    check_choice(inputs, INPUTS, "inputs")
    output = output_of(estimator)
    given = _modalities(estimator, modalities)
    _check_torch()
    if wanted == "onnx":
        _check_onnx(estimator, given)
    about = _describe(estimator, output, given, inputs)
    graph = ScanGraph(estimator, output, given, scaled=inputs == "scaled")
    with warnings.catch_warnings():  # of torch about its own parts
        warnings.simplefilter("ignore", FutureWarning)
        drawn = _draw(graph, about)
        to_bytes = _onnx_bytes if wanted == "onnx" else _torch_bytes
        content = to_bytes(drawn, about)
    write_atomically(path.resolve(), content)
    return about


def _format(path: Path, wanted: str | None) -> str:
    """Return the format to write."""
    if wanted is None:
        check_choice(path.suffix, tuple(FORMATS), "suffix")
        return FORMATS[path.suffix]
    check_choice(wanted, tuple(FORMATS.values()), "format")
    return wanted


def _modalities(estimator: Any, wanted: str) -> tuple[str, ...]:
    """Return the modalities that the graph reads."""
    check_choice(wanted, ("auto", "fmri", "sc", "both"), "modalities")
    if wanted == "auto":
        return estimator.modalities_
    asked = ("fmri", "sc") if wanted == "both" else (wanted,)
    missing = [m for m in asked if m not in estimator.modalities_]
    if missing:
        raise ValueError(
            f"export_graph needs a model of {missing[0]!r} for modalities="
            f"{wanted!r}. Got one "
            f"fitted on {list(estimator.modalities_)}. Choose among these."
        )
    return asked


def _describe(
    estimator: Any, output: Output, modalities: tuple[str, ...], inputs: str
) -> dict[str, Any]:
    """Return what somebody needs to know to use the graph, as JSON can hold it."""
    fitted = estimator.preprocessing_
    n_regions = int(estimator.n_regions_)
    shapes = {
        "fmri": [BATCH, int(fitted.window), n_regions],
        "sc": [BATCH, n_regions, n_regions],
    }
    dtype = "float64" if estimator.dtype == "float64" else "float32"
    return {
        "estimator": type(estimator).__name__,
        "inputs": {m: {"shape": shapes[m], "dtype": dtype} for m in modalities},
        "scans": inputs,
        "output": {"name": output.name, "shape": [BATCH, len(output.columns)]},
        "columns": output.columns,
        "regions": list(estimator.regions_),
        "t_r": fitted.t_r,
        "standardize": estimator.standardize,
        "sc_scaling": estimator.sc_scaling,
        "versions": {"bsym_sklearn": __version__, "torch": torch.__version__},
    }


def _draw(graph: ScanGraph, about: dict[str, Any]) -> ExportedProgram:
    """Return the graph of plain operators, drawn with scans of zeros."""
    examples = {
        name: torch.zeros(2, *one["shape"][1:], dtype=graph.dtype)
        for name, one in about["inputs"].items()
    }
    batch = Dim(BATCH, min=1)
    shapes = {name: {0: batch} for name in examples}
    with torch.no_grad():
        drawn = torch.export.export(
            graph, (), examples, dynamic_shapes=shapes, strict=False
        )
    # nothing in place, and no attention maps that nobody reads
    drawn = drawn.run_decompositions({})
    for node in drawn.graph.nodes:
        for trace in TRACES:
            node.meta.pop(trace, None)
    return drawn


def _torch_bytes(drawn: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return the content of a ``.pt2`` file."""
    content = io.BytesIO()
    torch.export.save(drawn, content, extra_files={DESCRIPTION: json.dumps(about)})
    return content.getvalue()


def _onnx_bytes(drawn: ExportedProgram, about: dict[str, Any]) -> bytes:
    """Return the content of an ``.onnx`` file."""
    first, *others = about["inputs"]
    program: Any = torch.onnx.export(
        drawn,
        dynamo=True,
        input_names=[first, *others],
        output_names=[about["output"]["name"]],
        # one name is enough, as all have the same number of scans
        dynamic_shapes={first: {0: BATCH}, **dict.fromkeys(others)},
        verbose=False,
    )
    program.model.metadata_props[DESCRIPTION] = json.dumps(about)
    return program.model_proto.SerializeToString()


def _check_torch() -> None:
    """Raise if torch does not know when it draws a graph."""
    if not hasattr(torch.compiler, "is_exporting"):
        raise ImportError(
            f"export_graph needs torch {NEEDS_TORCH} or newer. Got {torch.__version__}."
        )


def _check_onnx(estimator: Any, modalities: tuple[str, ...]) -> None:
    """Raise if ONNX cannot say what the model does, or its packages are not there."""
    try:
        import_module("onnxscript")
    except ImportError as error:
        raise ImportError(
            "export_graph needs onnx and onnxscript to write ONNX. Got neither. "
            'Install them with `pip install "bsym_sklearn[onnx]"`.'
        ) from error
    config = estimator.backbone_.config
    problems = {
        f"dtype={estimator.dtype!r}": estimator.dtype == "float64",
        f"structural_positions={config['structural_positions']!r}": "sc" in modalities
        and config["structural_positions"] != "learned",
    }
    for problem, there in problems.items():
        if there:
            raise ValueError(
                "export_graph needs operators that runtimes of ONNX have. Got a model "
                f"with {problem}. Write a '.pt2' file, or fit with another value."
            )
