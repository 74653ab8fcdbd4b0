"""Which code made a result."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import bsym_sklearn

LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "nilearn")


class Provenance(NamedTuple):
    """Versions of everything that a result came from.

    Parameters
    ----------
    versions : dict of str to str
        Of Python, this package and the libraries that it computes with.
    code : str
        Hash of the source of this package.
    commit : str or None
        Git commit of this package's folder, with ``-dirty`` if files were changed.
        None if it is in no repository.

    Examples
    --------
    >>> current_provenance().versions["bsym_sklearn"] == bsym_sklearn.__version__
    True
    """

    versions: dict[str, str]
    code: str
    commit: str | None


def current_provenance() -> Provenance:
    """Return what results come from now.

    Returns
    -------
    Provenance

    Examples
    --------
    >>> "torch" in current_provenance().versions
    True
    """
    folder = Path(bsym_sklearn.__file__).parent
    versions = {
        "python": platform.python_version(),
        "bsym_sklearn": bsym_sklearn.__version__,
        **{name: version(name) for name in LIBRARIES},
    }
    source = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        source.update(path.relative_to(folder).as_posix().encode())
        source.update(path.read_bytes())
    return Provenance(versions, source.hexdigest()[:16], _commit(folder))


def _commit(folder: Path) -> str | None:
    """Return the git commit of a folder whose files are tracked."""
    is_tracked = _git(folder, "ls-files", "--error-unmatch", "version.py")
    if is_tracked is None:
        return None  # e.g. installed into an environment within another repository
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says, None if it fails or is not there."""
    try:
        said = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
