"""The officially released weights: downloaded once, checked whenever they are used."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from numbers import Real
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sklearn.utils import check_scalar
from tqdm.auto import tqdm

from bsym_sklearn.data.checks import check_count
from bsym_sklearn.exceptions import CheckpointError
from bsym_sklearn.training.reference import (
    CONTEXT,
    PERCEIVER,
    SPATIAL,
    STRUCTURAL,
    TEMPORAL,
)
from bsym_sklearn.version import __version__

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

REFERENCE_NAME = "brainsymphony-reference"  # what estimators call these weights
COMMIT = "1be0ae52253a2dde8fda72dd6fd151dcc15625ba"
URL = (
    "https://raw.githubusercontent.com/Moein-Khajehnejad/BrainSymphony/"
    f"{COMMIT}/checkpoints"
)
# What git calls the content of each file at that commit.
BLOBS = {
    SPATIAL.file: "d2838235469933311207946089269572d9830509",
    TEMPORAL.file: "92013fe6f8874c2801629d093855483ff6df25c7",
    CONTEXT.file: "4515abab4b649e6315e460263254d93ffcc41a8e",
    PERCEIVER.file: "cf6c0d10f9566bcd4cd6c20c0bc1ab375227deaa",
    STRUCTURAL.file: "ee6fa13182d1a21dcf77c1d7977b1ba4b07fd1eb",
}
DATA_VARIABLE = "BSYM_DATA"  # of the environment

CHUNK = 2**16  # bytes
MAX_BYTES = 2**26  # of a file; its authors' way of publishing allows 25 MiB
SLOWEST = 4096  # bytes per second, so that no server can keep us for ever
LONGEST_TIMEOUT = 3600  # seconds
LONGEST_WAIT = 600.0  # seconds for another process that downloads the same
POLL = 0.1  # seconds
TRANSIENT = (408, 425, 429)  # HTTP: ask again later, as after any 5xx
BAD_RANGE = 416  # HTTP
PARTIAL = 206  # HTTP
ADVICE = (
    "Check the connection, the proxy (the environment variable https_proxy) and "
    "`url`, and call again: it goes on where it stopped. Or copy '{folder}' from a "
    "machine that has it."
)


class _BrokenError(Exception):
    """A download that did not end, and may if it is tried again."""


@dataclass(frozen=True)
class _Source:
    """Where files come from and go to, and how patiently to ask for them."""

    url: str
    folder: Path
    timeout: float
    n_retries: int
    delay: float
    verbose: int


class _SafeRedirects(HTTPRedirectHandler):
    """Follow redirects to https only, whatever scheme they come from."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        if urlsplit(newurl).scheme != "https":
            raise CheckpointError(
                "fetch_reference_checkpoint needs an https address. Got "
                f"'{req.full_url}', which leads to '{newurl}'. Use another `url`."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_reference_checkpoint(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    timeout: float = 30.0,
    n_retries: int = 3,
    delay: float = 1.0,
    allow_http: bool = False,
    verbose: int = 0,
) -> Path:
    """Download the officially released weights, unless they are there already.

    Five files of the repository Moein-Khajehnejad/BrainSymphony at commit 1be0ae5.
    Each is compared with the id that git has for its content, now and whenever it is
    used again; nothing else ever gets its name. A download that was interrupted goes
    on where it stopped. Several processes may call this at once.

    Parameters
    ----------
    data_dir : path-like or None, default=None
        Where downloads are kept. None takes the environment variable ``BSYM_DATA``,
        or without it ``bsym_sklearn`` in the user's cache folder
        (``$XDG_CACHE_HOME``, else ``~/.cache``).
    url : str or None, default=None
        Where ``functional_v1`` and ``structural_v1`` lie. None is the authors'
        repository. Files from anywhere have to be the same.
    timeout : float, default=30.0
        Seconds to wait for a connection and for each of its answers, in (0, 3600].
    n_retries : int, default=3
        Tries after the first if the connection breaks, at least 0.
    delay : float, default=1.0
        Seconds before the first of them, at least 0; twice as long before each
        further one.
    allow_http : bool, default=False
        Whether `url` may be one of http. Redirects have to be to https even so.
    verbose : int, default=0
        Above 0 there is a progress bar.

    Returns
    -------
    Path
        Folder for :func:`~bsym_sklearn.load_reference_checkpoint`.

    Raises
    ------
    CheckpointError
        If a file cannot be had: no connection, no such address, cut short, too slow,
        too large, or with another content than was released.
    OSError
        If it cannot be stored: no permission, a full disk.
    ValueError, TypeError
        If a parameter is out of its range or of another type.

    See Also
    --------
    load_reference_checkpoint : Read the weights.

    Notes
    -----
    Estimators download them for ``pretrained="brainsymphony-reference"``. The
    repository is under the Apache License 2.0.

    References
    ----------
    .. [1] Khajehnejad et al. (2025). BrainSymphony. arXiv:2506.18314.

    Examples
    --------
    >>> folder = fetch_reference_checkpoint()  # doctest: +SKIP
    >>> fetch_reference_checkpoint(url="http://example.org")
    Traceback (most recent call last):
    ValueError: fetch_reference_checkpoint needs an https address. Got ...
    """
    check_scalar(
        timeout,
        "timeout",
        Real,
        min_val=0,
        max_val=LONGEST_TIMEOUT,
        include_boundaries="right",
    )
    check_count("n_retries", n_retries, lowest=0)
    check_scalar(delay, "delay", Real, min_val=0)
    folder = _data_dir(data_dir) / f"{REFERENCE_NAME}-{COMMIT[:7]}"
    source = _Source(
        _check_url(URL if url is None else url, allow_http),
        folder,
        timeout,
        n_retries,
        delay,
        verbose,
    )
    try:
        if not _is_complete(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / ".lock") as alone:
                for file, blob in BLOBS.items():
                    _fetch(source, file, blob, alone)
    except OSError as error:
        raise OSError(
            error.errno,
            "fetch_reference_checkpoint needs a folder that it can read and write. "
            f"Got '{folder}': {error.strerror}. Make room in it or pass another "
            f"`data_dir`; the environment variable {DATA_VARIABLE} sets the default.",
        ) from error
    return folder


def _data_dir(data_dir: str | os.PathLike[str] | None) -> Path:
    """Return where downloads are kept."""
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if not chosen:
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        chosen = Path(cache) / "bsym_sklearn"
    return Path(chosen).expanduser().resolve()


def _check_url(url: str, allow_http: bool) -> str:
    """Return the address without its last slash, or raise."""
    schemes = ("https", "http") if allow_http else ("https",)
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname or not url.isascii():
        raise ValueError(
            f"fetch_reference_checkpoint needs an https address. Got '{url}'. Use "
            "https, or `allow_http` in a network that you trust."
        )
    return url.rstrip("/")


def _is_complete(folder: Path) -> bool:
    """Return whether every file is there and as released."""
    return all(_blob_id(folder / file) == blob for file, blob in BLOBS.items())


def _blob_id(path: Path) -> str | None:
    """Return what git calls the content of a file, None if there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Wait until no other process downloads; say whether that is certain.

    It is not where the file system cannot lock, or if another one takes too long.
    The lock of a process that dies is free at once.
    """
    deadline = time.monotonic() + LONGEST_WAIT
    with path.open("ab") as file:
        while (locked := _try_lock(file.fileno())) is False:
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        yield bool(locked)


def _try_lock(descriptor: int) -> bool | None:
    """Return whether an open file is now locked, None if it cannot be."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _fetch(source: _Source, file: str, blob: str, alone: bool) -> None:
    """Put one file into its place, if it is not there as released."""
    path = source.folder / file
    if _blob_id(path) == blob:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path, alone) as part:
        for keeps in (True, False):  # what is there first, then all of it anew
            if not keeps:
                part.unlink(missing_ok=True)
            if _blob_id(part) != blob:
                _receive(source, file, part)
            if _blob_id(part) == blob:
                part.replace(path)
                return
        size, got = part.stat().st_size, _blob_id(part)
        part.unlink()
    raise CheckpointError(
        f"fetch_reference_checkpoint needs '{file}' as it was released (git blob "
        f"{blob}). Got {size} bytes of git blob {got} from '{source.url}/{file}'. "
        "Something on the way has changed it: use another network or `url`."
    )


@contextmanager
def _partial(path: Path, alone: bool) -> Iterator[Path]:
    """Lend the file that a download grows in, kept if the connection breaks."""
    own = "" if alone else f".{uuid.uuid4().hex}"
    part = path.with_name(f".{path.name}{own}.part")
    if part.is_symlink():  # somebody else's: never write where it leads
        part.unlink()
    try:
        yield part
    except (OSError, CheckpointError) as error:
        if not isinstance(error.__cause__, _BrokenError):  # e.g. a full disk
            part.unlink(missing_ok=True)
        raise
    finally:
        if not alone:
            part.unlink(missing_ok=True)


def _receive(source: _Source, file: str, part: Path) -> None:
    """Append to `part` what it lacks, again and again if the connection breaks."""
    for attempt in range(source.n_retries + 1):
        if attempt:
            time.sleep(source.delay * 2 ** (attempt - 1))
        try:
            return _receive_once(source, file, part)
        except _BrokenError as error:
            broken = error
    raise CheckpointError(_cannot_get(source, file, str(broken))) from broken


def _cannot_get(source: _Source, file: str, problem: str) -> str:
    """Return the text of an error."""
    return (
        f"fetch_reference_checkpoint needs '{file}'. Got {problem} from "
        f"'{source.url}/{file}'. {ADVICE.format(folder=source.folder)}"
    )


def _receive_once(source: _Source, file: str, part: Path) -> None:
    """Append to `part` what it lacks, or write it anew if the server wants so."""
    begin = part.stat().st_size if part.exists() else 0
    response = _open(source, file, begin)
    if response is None:
        return
    with response:
        resumed = begin > 0 and response.status == PARTIAL
        place = response.headers.get("Content-Range", "")
        if resumed and not place.startswith(f"bytes {begin}-"):
            return  # something else than was asked for: as if there were no more
        with (
            part.open("ab" if resumed else "wb") as out,
            tqdm(
                desc=file,
                unit="B",
                unit_scale=True,
                initial=begin if resumed else 0,
                disable=not source.verbose,
            ) as bar,
        ):
            for chunk in _chunks(source, file, response, begin if resumed else 0):
                out.write(chunk)
                bar.update(len(chunk))
            out.flush()
            os.fsync(out.fileno())


def _open(source: _Source, file: str, begin: int) -> HTTPResponse | None:
    """Return the answer of the server, None if it has nothing from `begin` on."""
    headers = {
        "User-Agent": f"bsym_sklearn/{__version__}",
        "Accept-Encoding": "identity",
    }
    if begin:
        headers["Range"] = f"bytes={begin}-"
    request = Request(f"{source.url}/{file}", headers=headers)
    try:
        response: Any = build_opener(_SafeRedirects).open(
            request, timeout=source.timeout
        )
    except HTTPError as error:
        error.close()
        if error.code == BAD_RANGE and begin:
            return None
        problem = f"HTTP status {error.code} ({error.reason})"
        if error.code in TRANSIENT or error.code >= 500:
            raise _BrokenError(problem) from error
        raise CheckpointError(_cannot_get(source, file, problem)) from error
    except (OSError, HTTPException) as error:  # also urllib's own
        raise _BrokenError(f"no answer ({_reason(error)})") from error
    return response


def _chunks(
    source: _Source, file: str, response: HTTPResponse, begin: int
) -> Iterator[bytes]:
    """Yield the body as it comes, if it comes whole and is not too slow or long."""
    announced = response.length  # None if the server does not say
    started = time.monotonic()
    n_bytes = 0
    while announced is None or n_bytes < announced:
        if begin + max(n_bytes, announced or 0) > MAX_BYTES:
            problem = f"a file of more than {MAX_BYTES} bytes"
            raise CheckpointError(_cannot_get(source, file, problem))
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise _BrokenError(
                f"{begin + n_bytes} bytes, then nothing ({_reason(error)})"
            ) from error
        if not chunk:
            break
        n_bytes += len(chunk)
        yield chunk
        if time.monotonic() - started > source.timeout + n_bytes / SLOWEST:
            raise _BrokenError(f"fewer than {SLOWEST} bytes per second")
    if announced is not None and n_bytes < announced:
        raise _BrokenError(f"{begin + n_bytes} of {begin + announced} bytes")


def _reason(error: Exception) -> str:
    """Return why a connection failed, in a few words."""
    cause = getattr(error, "reason", error)
    return str(cause) or type(cause).__name__
