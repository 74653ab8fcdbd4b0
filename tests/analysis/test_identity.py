"""What a result depends on has one name, in every process."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from bsym_sklearn import BrainSymphonyClassifier
from bsym_sklearn.analysis.identity import describe, hash_of


class Holder(BaseEstimator):
    """Holds any parameter."""

    def __init__(self, value=None):
        self.value = value


class Plain:
    """Has no repr of its own."""

    def __init__(self, x: int) -> None:
        self.x = x


def made(source: str) -> Any:
    """Return the `f` of some code, as a script would hold it."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), scope)
    return scope["f"]


@pytest.mark.parametrize(
    "source",
    [
        "column = ['?']\ndef f(X): return X[column]",
        "f = lambda k: k in {'?', 'z'}",
        "f = lambda X: map(lambda v: v + '?', X)",
        "def g(X): return '?'\ndef f(X): return g(X)",
        "def f(X): return b'?'",
        "def f(X, k='?'): return X",
        "def f(X, *, k='?'): return X",
        "def g(k):\n    return lambda X: k\nf = g('?')",
        "class f:\n    def fit(self): return '?'",
        "class f:\n    @property\n    def rate(self): return '?'",
        "class f:\n    @classmethod\n    def rate(cls): return '?'",
        "class f:\n    rate = '?'",
        "class g:\n    def fit(self): return '?'\nclass f(g): pass",
    ],
)
def test_code_is_told_apart_by_what_it_does(source: str) -> None:
    one, again, other = (
        hash_of(describe(Holder(made(source.replace("?", letter))))) for letter in "aab"
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a", "b"}, {"a", "c"}),
        (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"b": [1.0]})),
        (pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": [1.0]}, index=[4])),
        (pd.Series([1.0, 2.0]), pd.Series([2.0, 1.0])),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
    ],
)
def test_data_is_told_apart_by_its_content(one: Any, other: Any) -> None:
    assert hash_of(describe(Holder(one))) != hash_of(describe(Holder(other)))
    assert hash_of(describe(one)) == hash_of(describe(deepcopy(one)))


def test_functions_that_name_one_another_end() -> None:
    code = "def g(n): return f(n - 1)\ndef f(n): return n and g(n)"
    assert describe(made(code)) == describe(made(code))
    held = f"from {Holder.__module__} import Holder\ndef f(): return g\ng = Holder(f)"
    assert describe(made(held)) == describe(made(held))
    within = "class f:\n    def again(self): return f()"
    assert describe(made(within)) == describe(made(within))


def test_a_frozen_model_is_what_it_has_learned() -> None:
    X = np.arange(6.0).reshape(3, 2)
    for model in (StandardScaler(), make_pipeline(PCA(1), StandardScaler())):
        one, again, other = (
            hash_of(describe(make_pipeline(FrozenEstimator(clone(model).fit(x)))))
            for x in (X, X, 2 * X)
        )
        assert one == again != other


@pytest.mark.slow
def test_names_are_the_same_in_every_process() -> None:
    script = (
        "from bsym_sklearn.analysis.identity import describe, hash_of\n"
        "rates = {'b': {3, 1}, 'a': frozenset({'x', 'y'})}\n"
        "def f(x):\n    return x in {'k', 'l', 'm'} and rates\n"
        "print(hash_of(describe(f)))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": str(seed), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(said) == 1


def test_estimators_are_told_apart_by_what_can_be_set() -> None:
    different = [
        LogisticRegression(),
        LogisticRegression(C=2.0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(StandardScaler(with_mean=False), LogisticRegression()),
        GridSearchCV(Ridge(), {"alpha": [1.0]}),
        GridSearchCV(Ridge(), {"alpha": [2.0]}),
        VotingClassifier([("a", LogisticRegression())]),
        VotingClassifier([("b", LogisticRegression())]),
        FunctionTransformer(np.log1p),
        FunctionTransformer(lambda x: x + 1),
        FunctionTransformer(lambda x: x + 2),
        FunctionTransformer(partial(np.clip, a_min=0)),
        FunctionTransformer(partial(np.clip, a_min=1)),
        Holder(np.arange(2000)),
        Holder(np.arange(2000) % 1999),
        Holder(Plain(1)),
        Holder(Plain(2)),
        Holder(Ridge),
        Holder(Path("a")),
    ]
    hashes = [hash_of(describe(estimator)) for estimator in different]
    assert len(set(hashes)) == len(different)
    again = Holder(Plain(2)), VotingClassifier([("b", LogisticRegression())])
    assert [hash_of(describe(e)) for e in again] == [hashes[16], hashes[7]]


def test_weights_are_told_apart_by_content_not_by_place(tmp_path: Path) -> None:
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(content)
    for inside in ("", "model"):  # a bundle, or a published file
        a, b, c = (
            hash_of(describe(BrainSymphonyClassifier(pretrained=tmp_path / x / inside)))
            for x in "abc"
        )
        assert a == b != c
