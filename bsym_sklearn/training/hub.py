"""Where weights come from: a folder, a name, or the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.bundle_format import BUNDLE_FILES
from bsym_sklearn.training.checkpoints import load_bundle
from bsym_sklearn.training.download import REFERENCE_NAME, fetch_reference_checkpoint
from bsym_sklearn.version import __version__

HUB = "hf://"
WORD = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
REPO_ID = re.compile(rf"{WORD}/{WORD}", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9_](?:[\w./-]{0,198}[A-Za-z0-9_])?", re.ASCII)


def resolve_source(source: str | Path, *, verbose: int = 0) -> Path:
    """Return the folder of weights that a name, an address or a path stands for.

    Parameters
    ----------
    source : str or Path
        ``"hf://owner/name"`` or ``"hf://owner/name@revision"`` are files on the
        Hugging Face hub, downloaded once (extra ``hub``): the three of a bundle, and
        no others. ``"brainsymphony-reference"`` are the released weights. Anything
        else is a path.
    verbose : int, default=0
        Above 0, downloads of released weights show a progress bar.

    Returns
    -------
    Path
        Not checked.

    Raises
    ------
    CheckpointError
        If something cannot be downloaded.
    ValueError
        If an address is malformed.
    ImportError
        If `huggingface_hub` is needed and not installed.

    Examples
    --------
    >>> resolve_source("models/embedder").name
    'embedder'
    >>> resolve_source("hf://name")
    Traceback (most recent call last):
    ValueError: The Hugging Face hub needs 'owner/name', of letters, digits, ...
    """
    if source == REFERENCE_NAME:
        return fetch_reference_checkpoint(verbose=verbose)
    if not is_hub_address(source):
        return Path(str(source))
    repo_id, at, revision = str(source).removeprefix(HUB).partition("@")
    _check_names(repo_id, revision if at else None)
    hub = _import_hub()
    try:
        folder = hub.snapshot_download(
            repo_id,
            revision=revision or None,
            allow_patterns=list(BUNDLE_FILES),
            library_name="bsym_sklearn",
            library_version=__version__,
        )
    except _hub_errors() as error:
        raise CheckpointError(
            f"The model '{source}' needs to be on the Hugging Face hub, or in its "
            f"cache on this machine. Got {_said(error)}. Check the name and the "
            "revision, log in with `hf auth login` if it is private, and download it "
            "once where there is internet."
        ) from error
    return Path(folder)


def push_to_hub(
    model: Any,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool = True,
    token: str | None = None,
    commit_message: str = "Upload a model of bsym_sklearn",
) -> str:
    """Upload a fitted estimator, or a folder that one was saved to.

    Needs `huggingface_hub` (the extra ``hub``).

    Parameters
    ----------
    model : estimator, str or Path
        Fitted, or the folder that `save_pretrained` wrote, in which a licence and
        metrics can be given.
    repo_id : str
        ``"owner/name"`` on the Hugging Face hub. Made if it is not there.
    revision : str or None, default=None
        Branch to upload to, made if it is not there. None is the main one.
    private : bool, default=True
        Whether only the owner may read it. Nothing is uploaded to a public repository
        unless this is False. A repository that exists stays as it is.
    token : str or None, default=None
        Of an account that may write. None takes the one of ``hf auth login``.
    commit_message : str, default="Upload a model of bsym_sklearn"
        What the hub shows beside the upload.

    Returns
    -------
    str
        ``"hf://owner/name@commit"``, which `pretrained` and `from_pretrained` take.

    Raises
    ------
    CheckpointError
        If the folder is no bundle, the repository is public and `private` is True, or
        the hub cannot be reached or refuses.
    ValueError
        If a name is malformed.
    ImportError
        If `huggingface_hub` is not installed.

    Examples
    --------
    >>> push_to_hub("models/embedder", "owner/name")  # doctest: +SKIP
    'hf://owner/name@4f0c...'
    >>> push_to_hub("models/embedder", "name")
    Traceback (most recent call last):
    ValueError: The Hugging Face hub needs 'owner/name', of letters, digits, ...
    """
    _check_names(repo_id, revision)
    hub = _import_hub()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        if isinstance(model, str | Path):
            folder = Path(model)
        else:
            model.save_pretrained(folder)
        load_bundle(folder)  # refuses what nobody could load
        api = hub.HfApi(
            token=token, library_name="bsym_sklearn", library_version=__version__
        )
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if private and not api.repo_info(repo_id).private:
                raise CheckpointError(
                    f"push_to_hub needs a private repository. Got '{repo_id}', which "
                    "everybody can read. Pass private=False if that is what you want."
                )
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                allow_patterns=list(BUNDLE_FILES),
            )
        except _hub_errors() as error:
            raise CheckpointError(
                f"push_to_hub needs a Hugging Face hub that takes '{repo_id}'. Got "
                f"{_said(error)}. Check the name, the connection, and that you are "
                "logged in (`hf auth login`) as somebody who may write there."
            ) from error
    return f"{HUB}{repo_id}@{commit.oid}"


def is_hub_address(source: str | Path) -> bool:
    """Return whether weights are asked for by an address on the hub."""
    return isinstance(source, str) and source.startswith(HUB)


def _check_names(repo_id: str, revision: str | None) -> None:
    """Raise unless these can be a repository and a revision of it."""
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise ValueError(
            "The Hugging Face hub needs 'owner/name', of letters, digits, '-', '_' and "
            f"'.'. Got {repo_id!r}. Write hf://owner/name or hf://owner/name@revision."
        )
    if revision is None:
        return
    if not REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
        raise ValueError(
            "The Hugging Face hub needs a branch, a tag or a commit after '@'. Got "
            f"{revision!r}. Leave it out for the main branch."
        )


def _import_hub() -> ModuleType:
    """Return huggingface_hub, which is not needed for anything else."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "The Hugging Face hub needs the package 'huggingface_hub'. Install "
            "'bsym_sklearn[hub]'."
        ) from error
    return huggingface_hub


def _hub_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's functions raise if they cannot do what they should."""
    from huggingface_hub import errors

    # the bases are those of its HTTP client, which is not the same in all versions
    known = (OSError, errors.EntryNotFoundError, *errors.HfHubHTTPError.__bases__)
    return (*known, getattr(errors, "RevisionResolutionError", OSError))


def _said(error: Exception) -> str:
    """Return an error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__} ({lines[0] if lines else 'no reason given'})"
