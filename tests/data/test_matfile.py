"""MATLAB files, read by our own careful reader, against scipy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from bsym_sklearn.data.hdf5file import Hdf5File
from bsym_sklearn.data.matfile import MatFile


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u2", "i8"])
def test_mat_files_are_read_as_scipy_reads_them(
    tmp_path: Path, dtype: str, compressed: bool
) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(0).integers(0, 300, (4, 6)).astype(dtype)
    cells = np.array(["a", "Käse_1", "long label 3"], dtype=object)
    content = {"x": values, "y": cells, "z": np.array(["ab ", "c"]), "s": {"a": 1}}
    savemat(path, content, do_compression=compressed)
    file = MatFile(path)
    assert (file.numeric, file.textual) == (["x"], ["y", "z"])
    np.testing.assert_array_equal(file.numbers("x"), loadmat(path)["x"])
    assert file.texts("y") == ("a", "Käse_1", "long label 3")
    assert file.texts("z") == ("ab", "c")


def test_other_versions_say_how_to_save(tmp_path: Path) -> None:
    path = tmp_path / "old.mat"
    savemat(path, {"x": np.ones((2, 2))}, format="4")
    with pytest.raises(ValueError, match="of version 5; save it with -v7"):
        MatFile(path)


def test_a_compressed_variable_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(0).normal(size=(60, 60))
    savemat(path, {"x": values}, do_compression=True)
    data = bytearray(path.read_bytes())
    data[132:136] = (len(data) - 136 - 9000).to_bytes(4, "little")
    path.write_bytes(bytes(data[:-9000]))
    file = MatFile(path)
    assert file.numeric == ["x"]
    with pytest.raises(ValueError, match="ends early"):
        file.numbers("x")


def test_matlab_7_3_is_read_as_matlab_shows_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 needs h5py")
    values = np.arange(6.0).reshape(2, 3)
    for name, size, written in (("v73.mat", 512, values.T), ("plain.h5", 0, values)):
        with h5py.File(tmp_path / name, "w", userblock_size=size) as file:
            file["x"] = written  # MATLAB writes by columns
        read = Hdf5File(tmp_path / name).numbers("x")
        np.testing.assert_array_equal(read, values)
