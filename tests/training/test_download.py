"""The released weights from a server on this machine, good and bad ones."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from bsym_sklearn import (
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    CheckpointError,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.model import BrainSymphony
from bsym_sklearn.training import download
from bsym_sklearn.training.download import (
    BLOBS,
    REFERENCE_NAME,
    fetch_reference_checkpoint,
)
from bsym_sklearn.training.reference import PARTS, STRUCTURAL, load_reference_checkpoint

FOLDER = "brainsymphony-reference-1be0ae5"
FILES = {part.file: os.urandom(3000) + part.file.encode() for part in PARTS}
FIRST = next(iter(BLOBS))  # what is asked for first
SIZE = len(FILES[FIRST])
HALF = SIZE // 2


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; what it does wrong with the next requests is in `faults`."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.faults: list[str] = []
        self.always = ""  # a fault
        self.seen: list[tuple[str, str | None]] = []  # path, range
        self.leads_to = ""
        self.stalled, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.seen.append((self.path[1:], asked))
        fault = server.faults.pop(0) if server.faults else server.always
        content = server.files.get(self.path[1:])
        if fault.isdecimal() or content is None:
            self.send_error(int(fault or 404))
        elif fault == "redirect":
            self.send_response(302)
            self.send_header("Location", server.leads_to)
            self.end_headers()
        else:
            self.send_content(content, asked, fault)

    def send_content(self, content: bytes, asked: str | None, fault: str) -> None:
        begin = int(asked.split("=")[1][:-1]) if asked and fault != "no range" else 0
        if begin >= len(content):
            self.send_error(416)
            return
        told = begin + (fault == "other range")
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {told}-{SIZE - 1}/{SIZE}")
        self.send_header("Content-Disposition", 'attachment; filename="../../out"')
        self.send_body(content[begin:], fault)

    def send_body(self, body: bytes, fault: str) -> None:
        if fault not in ("endless", "unknown length"):
            announced = 2**40 if fault == "huge" else len(body)
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if fault == "endless":
            while True:
                self.wfile.write(bytes(2**16))
        if fault == "trickle":
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
        stops = {"cut": HALF, "stall": HALF, "cut at once": 0}
        self.wfile.write(body[: stops.get(fault, len(body))])
        if fault == "stall":
            self.server.stalled.set()
            self.server.go_on.wait(20)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server of the five files, whose ids are now the expected ones."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for file, content in FILES.items():
        monkeypatch.setitem(BLOBS, file, blob_id(content))
    with Server(FILES) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def fetch(server: Server, data_dir: Path, **options: Any) -> Path:
    fast = {"timeout": 5.0, "delay": 0, "allow_http": True}
    return fetch_reference_checkpoint(data_dir, **{"url": server.url} | fast | options)


def fill(data_dir: Path) -> Path:
    """Write the five files as if they were downloaded."""
    for file, content in FILES.items():
        path = data_dir / FOLDER / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return data_dir / FOLDER


def found(data_dir: Path) -> dict[str, bytes]:
    """Return all that lies in a folder, except for the empty lock."""
    return {
        path.relative_to(data_dir / FOLDER).as_posix(): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def part_of(data_dir: Path, file: str = FIRST) -> Path:
    path = data_dir / FOLDER / file
    return path.with_name(f".{path.name}.part")


def leave_part(data_dir: Path, content: bytes) -> Path:
    part = part_of(data_dir)
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def ranges(server: Server, file: str = FIRST) -> list[str | None]:
    return [asked for path, asked in server.seen if path == file]


# ------------------------------------------------------------------ as it should be


def test_the_five_released_files_are_pinned() -> None:
    assert set(BLOBS) == {part.file for part in PARTS}
    assert all(re.fullmatch("[0-9a-f]{40}", blob) for blob in BLOBS.values())
    assert download.URL.startswith("https://")
    assert download.COMMIT in download.URL


def test_files_arrive_in_the_layout_that_the_loader_reads(server, tmp_path) -> None:
    folder = fetch(server, tmp_path)
    assert folder == tmp_path / FOLDER
    assert found(tmp_path) == FILES


def test_verified_files_are_not_asked_for_again(server, tmp_path) -> None:
    first = fetch(server, tmp_path)
    server.seen.clear()
    assert fetch(server, str(tmp_path)) == first
    assert server.seen == []


def test_nothing_is_written_where_all_is_there(server, tmp_path) -> None:
    folder = fill(tmp_path)
    assert fetch(server, tmp_path) == folder
    assert not (folder / ".lock").exists()


def test_a_corrupt_file_is_replaced_and_no_other(server, tmp_path) -> None:
    broken = fill(tmp_path) / FIRST
    broken.write_bytes(FILES[FIRST][:-1] + b"?")
    fetch(server, tmp_path)
    assert server.seen == [(FIRST, None)]
    assert found(tmp_path) == FILES


def test_a_corrupt_file_without_a_connection_raises(server, tmp_path) -> None:
    (fill(tmp_path) / FIRST).write_bytes(b"")
    server.always = "503"
    with pytest.raises(CheckpointError, match="HTTP status 503"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("fault", ["", "unknown length"])
def test_a_server_need_not_say_how_long_a_file_is(server, tmp_path, fault) -> None:
    server.always = fault
    fetch(server, tmp_path)
    assert found(tmp_path) == FILES


def test_the_default_folder_is_of_the_environment(
    server, tmp_path, monkeypatch
) -> None:
    fill(tmp_path / "named")
    monkeypatch.setenv("BSYM_DATA", str(tmp_path / "named"))
    assert fetch_reference_checkpoint() == tmp_path / "named" / FOLDER
    fill(tmp_path / "cache" / "bsym_sklearn")
    monkeypatch.setenv("BSYM_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = tmp_path / "cache" / "bsym_sklearn" / FOLDER
    assert fetch_reference_checkpoint() == expected


def test_it_is_quiet_unless_asked(server, tmp_path, capsys) -> None:
    fetch(server, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    fetch(server, tmp_path / "loud", verbose=1)
    assert FIRST in capsys.readouterr().err


def test_threads_share_one_download(server, tmp_path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: fetch(server, tmp_path), range(4)))
    assert folders == {tmp_path / FOLDER}
    assert sorted(path for path, _ in server.seen) == sorted(FILES)
    assert found(tmp_path) == FILES


@pytest.mark.parametrize("answer", [None, False])
def test_without_a_lock_it_downloads_beside_others(
    server, tmp_path, monkeypatch, answer
) -> None:
    monkeypatch.setattr(download, "_try_lock", lambda descriptor: answer)
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.0)
    theirs = leave_part(tmp_path, FILES[FIRST][:HALF])
    other = {theirs.relative_to(tmp_path / FOLDER).as_posix(): FILES[FIRST][:HALF]}
    server.faults = ["cut"]
    with pytest.raises(CheckpointError, match=f"Got {HALF} of {SIZE} bytes"):
        fetch(server, tmp_path, n_retries=0)
    assert found(tmp_path) == other  # nobody would go on with what came
    fetch(server, tmp_path)
    assert ranges(server) == [None, None]
    assert found(tmp_path) == FILES | other


# ------------------------------------------------------------------ going on


@pytest.mark.parametrize("fault", ["cut", "stall"])
def test_a_download_cut_short_goes_on_where_it_stopped(server, tmp_path, fault) -> None:
    server.faults = [fault]
    fetch(server, tmp_path, timeout=1.0 if fault == "stall" else 5.0)
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert found(tmp_path) == FILES


@pytest.mark.parametrize("fault", ["408", "429", "500", "503", "cut at once"])
def test_passing_failures_are_tried_again(server, tmp_path, fault) -> None:
    server.faults = [fault, fault]
    fetch(server, tmp_path, n_retries=2)
    assert ranges(server) == [None] * 3


def test_a_later_call_goes_on_where_an_earlier_one_stopped(server, tmp_path) -> None:
    server.faults = ["cut"]
    with pytest.raises(CheckpointError, match=f"Got {HALF} of {SIZE} bytes from"):
        fetch(server, tmp_path, n_retries=0)
    assert list(found(tmp_path).values()) == [FILES[FIRST][:HALF]]
    fetch(server, tmp_path, n_retries=0)
    assert ranges(server) == [None, f"bytes={HALF}-"]
    assert found(tmp_path) == FILES


def test_a_finished_part_is_only_renamed(server, tmp_path) -> None:
    leave_part(tmp_path, FILES[FIRST])
    fetch(server, tmp_path)
    assert ranges(server) == []
    assert found(tmp_path) == FILES


def test_a_server_without_ranges_sends_all_of_it(server, tmp_path) -> None:
    leave_part(tmp_path, FILES[FIRST][:HALF])
    server.faults = ["no range"]
    fetch(server, tmp_path)
    assert ranges(server) == [f"bytes={HALF}-"]
    assert found(tmp_path) == FILES


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"?" * HALF, ""),  # the beginning of another file
        (b"?" * (2 * SIZE), ""),  # more than there is: 416
        (FILES[FIRST][:HALF], "other range"),
    ],
)
def test_a_part_that_does_not_fit_is_dropped(server, tmp_path, content, fault) -> None:
    leave_part(tmp_path, content)
    server.faults = [fault]
    fetch(server, tmp_path, n_retries=0)
    assert ranges(server) == [f"bytes={len(content)}-", None]
    assert found(tmp_path) == FILES


def test_an_interruption_leaves_a_part_and_no_file(
    server, tmp_path, monkeypatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        server.faults = ["cut"]
        with pytest.raises(CheckpointError):
            fetch(server, tmp_path, n_retries=0)
        with pytest.raises(KeyboardInterrupt):
            fetch(server, tmp_path)
    assert set(found(tmp_path)) == {"functional_v1/.spatial.pth.part"}
    fetch(server, tmp_path)
    assert found(tmp_path) == FILES


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_download_goes_on_at_once(server, tmp_path) -> None:
    code = (
        "import sys; from bsym_sklearn.training.download import *\n"
        "fetch_reference_checkpoint(sys.argv[1], url=sys.argv[2], allow_http=True)"
    )
    server.faults = ["stall"]
    command = [sys.executable, "-c", code, str(tmp_path), server.url]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        assert server.stalled.wait(120)
        deadline = time.monotonic() + 5
        while not part_of(tmp_path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert set(found(tmp_path)) == {"functional_v1/.spatial.pth.part"}
    fetch(server, tmp_path)
    assert found(tmp_path) == FILES


# ------------------------------------------------------------------ as it should not be


def assert_refused(
    server: Server, data_dir: Path, message: str, **options: Any
) -> None:
    """Assert that the first file is refused and nothing of it stays."""
    with pytest.raises(CheckpointError, match=message):
        fetch(server, data_dir, **options)
    assert found(data_dir) == {}


def test_a_file_that_is_not_there_raises_at_once(server, tmp_path) -> None:
    del server.files[FIRST]
    message = (
        rf"fetch_reference_checkpoint needs '{FIRST}'. Got HTTP status 404 \(Not "
        rf"Found\) from '{server.url}/{FIRST}'. Check the connection.*Or copy '.*"
        f"{FOLDER}' from a machine that has it"
    )
    assert_refused(server, tmp_path, message)
    assert len(server.seen) == 1


def test_another_content_raises_and_is_not_kept(server, tmp_path) -> None:
    other = FILES[FIRST][:-1] + b"?"
    server.files[FIRST] = other
    message = (
        rf"needs '{FIRST}' as it was released \(git blob {BLOBS[FIRST]}\). Got {SIZE} "
        f"bytes of git blob {blob_id(other)} from '{server.url}/{FIRST}'. Something on "
        "the way has changed it"
    )
    assert_refused(server, tmp_path, message)
    assert ranges(server) == [None, None]  # one more try, from the start


def test_a_page_in_the_place_of_a_file_raises(server, tmp_path) -> None:
    server.files[FIRST] = b"<html>Please log in</html>"
    assert_refused(server, tmp_path, "Got 26 bytes of git blob")


def test_files_that_came_before_a_bad_one_stay(server, tmp_path) -> None:
    *good, last = BLOBS
    del server.files[last]
    with pytest.raises(CheckpointError, match=last):
        fetch(server, tmp_path)
    assert found(tmp_path) == {file: FILES[file] for file in good}


def test_a_silent_server_raises_after_the_timeout(server, tmp_path) -> None:
    server.always = "stall"
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match=r"bytes, then nothing \(timed out\)"):
        fetch(server, tmp_path, timeout=1.0, n_retries=1)
    assert time.monotonic() - begun < 10
    assert ranges(server) == [None, f"bytes={HALF}-"]


def test_a_trickle_raises(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(download, "SLOWEST", 10**6)
    server.always = "trickle"
    with pytest.raises(CheckpointError, match="Got fewer than 1000000 bytes per sec"):
        fetch(server, tmp_path, timeout=1.0, n_retries=0)


@pytest.mark.parametrize("fault", ["endless", "huge"])
def test_a_body_without_end_raises(server, tmp_path, monkeypatch, fault) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 2**18)
    server.always = fault
    assert_refused(server, tmp_path, "Got a file of more than 262144 bytes from")


def test_no_connection_raises(server, tmp_path) -> None:
    with Server({}) as gone:
        url = gone.url
    with pytest.raises(CheckpointError, match=r"Got no answer \(.*refused") as caught:
        fetch(server, tmp_path, url=url, n_retries=1)
    assert "https_proxy" in str(caught.value)
    assert found(tmp_path) == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_raises(server, tmp_path, monkeypatch, code) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    message = (
        "fetch_reference_checkpoint needs a folder that it can read and write. Got "
        f"'.*{FOLDER}': {os.strerror(code)}. Make room in it or pass another `data_dir`"
    )
    with pytest.raises(OSError, match=message) as caught:
        fetch(server, tmp_path)
    assert caught.value.errno == code
    assert found(tmp_path) == {}


def test_a_file_in_the_place_of_the_folder_raises(server, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="needs a folder that it can read"):
        fetch(server, tmp_path / "file")


# ------------------------------------------------------------------ strangers


@pytest.mark.parametrize(
    "url", ["http://example.org", "file:///etc", "ftp://example.org", "https://", "a"]
)
def test_only_https_is_asked(tmp_path, url) -> None:
    with pytest.raises(ValueError, match=f"needs an https address. Got '{url}'"):
        fetch_reference_checkpoint(tmp_path, url=url)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://example.org"])
def test_allow_http_allows_nothing_else(tmp_path, url) -> None:
    with pytest.raises(ValueError, match="needs an https address"):
        fetch_reference_checkpoint(tmp_path, url=url, allow_http=True)


@pytest.mark.parametrize(
    "leads_to", ["http://127.0.0.1:9/", "ftp://127.0.0.1/", "file:///etc/hosts"]
)
def test_redirects_lead_to_https_only(server, tmp_path, leads_to) -> None:
    server.always, server.leads_to = "redirect", leads_to
    message = (
        f"needs an https address. Got '.*', which leads to '{leads_to}'|"
        f"Redirection to url '{leads_to}' is not allowed"  # urllib itself
    )
    assert_refused(server, tmp_path, message)
    assert len(server.seen) == 1


def test_redirects_to_https_are_followed(server, tmp_path) -> None:
    server.always = "redirect"
    server.leads_to = server.url.replace("http:", "https:")  # which speaks no TLS
    assert_refused(server, tmp_path, r"Got no answer \(.*SSL", n_retries=0)


def test_nothing_is_written_outside_of_the_folder(server, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    part = part_of(tmp_path / "data")
    part.parent.mkdir(parents=True)
    part.symlink_to(secret)
    fetch(server, tmp_path / "data")  # and the server says filename="../../out"
    assert found(tmp_path / "data") == FILES
    assert secret.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "secret"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("timeout", 0, "timeout == 0, must be > 0"),
        ("timeout", float("inf"), "timeout == inf, must be <= 3600"),
        ("n_retries", -1, "n_retries must be a whole number >= 0"),
        ("delay", -1, "delay == -1, must be >= 0"),
    ],
)
def test_parameters_out_of_range_raise(tmp_path, option, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        fetch_reference_checkpoint(tmp_path, **{option: value})


# ------------------------------------------------------------------ estimators

ESTIMATORS = [BrainSymphonyEmbedder, BrainSymphonyClassifier, BrainSymphonyRegressor]
R = 5


@pytest.fixture
def released(server, tmp_path, monkeypatch) -> Server:
    """Return a server of a tiny structural model, where estimators look for it."""
    model = BrainSymphony(R, 20, modalities=("sc",), dim=8, structural_depth=1)
    official = {ours: theirs for theirs, ours in STRUCTURAL.names.items()}
    tensors = {}
    for name, value in model.sc.state_dict().items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        prefix, inner = (f"layers.{block[1]}.", block[2]) if block else ("", name)
        module, _, kind = inner.rpartition(".")
        if inner in official:
            tensors[prefix + official[inner]] = value
        elif inner != "mask_token":
            tensors[f"{prefix}{official[module]}.{kind}"] = value
    path = tmp_path / "structural.pth"
    torch.save(tensors, path)
    server.files = {STRUCTURAL.file: path.read_bytes()}
    monkeypatch.setattr(
        download, "BLOBS", {STRUCTURAL.file: blob_id(path.read_bytes())}
    )
    monkeypatch.setattr(download, "URL", server.url)
    # the one thing that users cannot do: a default of http
    monkeypatch.setattr(download, "_check_url", lambda url, allow_http: url.rstrip("/"))
    monkeypatch.setenv("BSYM_DATA", str(tmp_path / "data"))
    return server


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimators_start_from_the_released_weights(kind, released, tmp_path) -> None:
    cohort = make_cohort(8, R, 30)
    X, y = cohort.data[["sc"]], cohort.target
    model = clone(kind(pretrained=REFERENCE_NAME, lr=1e-12, max_epochs=1))
    assert model.get_params()["pretrained"] == "brainsymphony-reference"
    assert released.seen == []  # nothing before fit
    model.fit(X, y)
    assert model.pretrained == "brainsymphony-reference"
    expected = load_reference_checkpoint(tmp_path / "data" / FOLDER).state_dict()
    got = model.backbone_.state_dict()
    assert got.keys() == expected.keys()
    for name, value in got.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)
    model.fit(X, y)
    assert len(released.seen) == 1


def test_a_fit_without_a_connection_says_what_to_do(released) -> None:
    released.files.clear()
    X = make_cohort(4, R, 30).data
    with pytest.raises(CheckpointError, match="Got HTTP status 404"):
        BrainSymphonyEmbedder(pretrained=REFERENCE_NAME).fit(X)


def test_scans_of_other_regions_than_the_released_weights_raise(released) -> None:
    X = make_cohort(4, R + 1, 30).data[["sc"]]
    with pytest.raises(CheckpointError, match=f"Got {R} in '{REFERENCE_NAME}'"):
        BrainSymphonyEmbedder(pretrained=REFERENCE_NAME).fit(X)


def test_a_path_of_that_name_is_a_folder(released) -> None:
    model = BrainSymphonyEmbedder(pretrained=Path(REFERENCE_NAME))
    with pytest.raises(
        CheckpointError, match=f"{REFERENCE_NAME}', which is not a folder"
    ):
        model.fit(make_cohort(4, R, 30).data)
    assert released.seen == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The official weights have no gate")
def test_a_folder_of_the_published_size_is_fetched_and_embeds(
    server, shared, tmp_path, monkeypatch
) -> None:
    folder = shared / "parity" / "checkpoint"
    server.files = {file: (folder / file).read_bytes() for file in BLOBS}
    blobs = {file: blob_id(content) for file, content in server.files.items()}
    # two of its files are the released ones, three are stand-ins
    assert blobs["functional_v1/context.pth"].startswith("4515abab4b64")
    assert blobs["functional_v1/fusion.pth"].startswith("cf6c0d10f956")
    monkeypatch.setattr(download, "BLOBS", blobs)
    server.faults = ["", "cut"]
    fetch(server, tmp_path)
    monkeypatch.setenv("BSYM_DATA", str(tmp_path))
    X = make_cohort(2, 450, 210).data
    model = BrainSymphonyEmbedder(pretrained=REFERENCE_NAME, max_epochs=0).fit(X)
    assert model.transform_regions(X).shape == (2, 450, 128)
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.network
def test_the_released_files_are_where_they_were(tmp_path) -> None:
    folder = fetch_reference_checkpoint(tmp_path)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.pth")} == set(
        BLOBS
    )
