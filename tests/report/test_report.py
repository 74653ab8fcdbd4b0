"""The page: what is on it for which model, and that nothing on it runs or loads."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

pytest.importorskip("jinja2", reason="the report needs jinja2")
pytest.importorskip("matplotlib", reason="the report needs matplotlib")
import matplotlib.pyplot as plt

from bsym_sklearn import (
    BlendClassifier,
    BrainDataError,
    BrainJEPAClassifier,
    BrainJEPAEmbedder,
    BrainLMClassifier,
    BrainSymphonyClassifier,
    BrainSymphonyEmbedder,
    BrainSymphonyRegressor,
    ConnectivityFeatures,
    FeatureClassifier,
    FeatureRegressor,
    NetworkClassifier,
)
from bsym_sklearn.data import make_cohort
from bsym_sklearn.plotting.attention import plot_attention
from bsym_sklearn.report import make_report, page
from bsym_sklearn.report.contents import MAX_ROWS, make_table
from bsym_sklearn.report.pictures import MAX_VECTOR, draw

SMALL = {"dim": 8, "depth": 1, "max_epochs": 2, "random_state": 0}
FAST = {"max_epochs": 2, "random_state": 0}
ALWAYS = ["cohort", "model"]
END = ["reproducibility"]
LIMIT = 5_000_000  # bytes


class Reader(HTMLParser):
    """Collect what a browser would find."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("script", "style"):
            self.text += f"{data} "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def sections(path: Path) -> list[str]:
    return [str(section["id"]) for section in read(path).all("section")]


def words(path: Path) -> str:
    return " ".join(read(path).text.split())


@pytest.fixture(scope="module")
def small():
    return make_cohort(n_scans=14, n_regions=8, n_timepoints=40, missing_sc=0.2)


@pytest.fixture(scope="module")
def classifier(small):
    return FeatureClassifier("amplitude").fit(small.data, small.target)


LEARNED = ["training", "reconstruction", "networks", "attention"]
KINDS = {
    "embedder": (BrainSymphonyEmbedder(**SMALL), LEARNED),
    "classifier": (
        BrainSymphonyClassifier(**SMALL),
        ["training", "attention", "predictions"],
    ),
    "regressor": (
        BrainSymphonyRegressor(**SMALL),
        ["training", "attention", "predictions"],
    ),
    "arrays": (
        BrainSymphonyEmbedder(**SMALL),
        ["training", "reconstruction", "attention"],
    ),
    "BrainLM": (BrainLMClassifier(patch_size=5, **FAST), ["training", "predictions"]),
    "Brain-JEPA": (BrainJEPAEmbedder(patch_size=5, **FAST), ["training"]),
    "network": (NetworkClassifier(**FAST), ["training", "predictions"]),
    "features": (FeatureRegressor("amplitude"), ["predictions"]),
    "blend": (
        BlendClassifier(
            [
                ("a", FeatureClassifier("amplitude")),
                ("b", NetworkClassifier(**FAST)),
            ],
            n_inner_folds=2,
        ),
        ["training", "predictions"],
    ),
    "pipeline": (
        make_pipeline(ConnectivityFeatures(), LogisticRegression()),
        ["predictions"],
    ),
}


@pytest.mark.filterwarnings("ignore:.*collapse:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_every_model_gets_the_sections_it_has_something_for(
    kind, small, tmp_path
) -> None:
    model, own = KINDS[kind]
    X = small.data if kind != "arrays" else list(small.data["fmri"])
    y = small.target if "regressor" not in kind else small.data["age"]
    made = make_report(model.fit(X, y), X, y, path=tmp_path / "page.html", max_scans=5)
    assert sections(made) == [*ALWAYS, *own, *END]
    assert made.stat().st_size < LIMIT
    found = read(made)
    assert all(image["alt"] and image["src"] for image in found.all("img"))
    assert len(found.all("img")) <= len(found.all("figcaption"))
    assert "nan" not in found.text.lower().split()


def test_nothing_on_the_page_loads_or_runs_but_its_own_script(hostile_page) -> None:
    found = read(hostile_page)
    names = [tag for tag, _ in found.tags]
    assert names.count("script") == names.count("style") == 1
    assert set(names).isdisjoint({"iframe", "object", "embed", "form", "base", "svg"})
    for tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in {"src", "href"} & attrs.keys():
            assert str(attrs[name]).startswith(("data:", "#")), (tag, attrs[name])


def test_the_policy_names_the_script_and_the_style_by_their_hash(hostile_page) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    policy = html.unescape(re.search(r'Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        source = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_hostile_names_stay_text(hostile_page, hostile) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    assert hostile not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    found = read(hostile_page)
    assert found.text.count(hostile) > 14 * 3  # scans, sites, predictions, ...
    assert "{{7*7}}" in found.text
    assert all("onerror" not in image for image in found.all("img"))


def test_pictures_hold_no_name_as_markup(hostile_page) -> None:
    images = [str(image["src"]) for image in read(hostile_page).all("img")]
    assert len(images) >= 6
    for uri in images:
        kind, _, data = uri.partition(";base64,")
        content = base64.b64decode(data)
        if kind.endswith("svg+xml"):
            assert b"alert(1)" not in content
            assert b"<!--" not in content


def test_an_old_page_stays_whole_if_writing_fails(
    classifier, small, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make_report(classifier, small.data, path=path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_of_many_scans_is_small(classifier, tmp_path) -> None:
    cohort = make_cohort(n_scans=600, n_regions=8, n_timepoints=20)
    made = make_report(
        classifier, cohort.data, cohort.target, path=tmp_path / "page.html"
    )
    assert made.stat().st_size < 1_000_000
    assert f"The first {MAX_ROWS} of 600 rows." in words(made)


def test_pictures_of_many_regions_become_pixels(rng) -> None:
    values = rng.dirichlet(np.ones(419), size=419)
    picture = draw(lambda ax: plot_attention(values, ax=ax), alt="a", caption="b")
    assert picture.on_paper
    assert len(picture.uri) < 1_000_000
    dots = draw(
        lambda ax: ax.plot(*rng.normal(size=(2, 9000)), "o"), alt="", caption=""
    )
    assert dots.uri.startswith("data:image/png;base64,")
    assert len(dots.uri) < 2 * MAX_VECTOR
    assert not dots.on_paper


def test_pictures_do_not_depend_on_the_style_of_the_user() -> None:
    def make() -> str:
        return draw(lambda ax: ax.plot([1, 2]), alt="", caption="").uri

    plain = make()
    with plt.style.context("dark_background"):
        assert make() == plain


def test_scans_that_cannot_be_used_are_listed_and_left_out(
    classifier, small, tmp_path
) -> None:
    X = small.data.copy()
    X["fmri"] = [x.copy() for x in X["fmri"]]
    X.loc[3, "fmri"][4, 2] = np.nan
    made = make_report(classifier, X, small.target, path=tmp_path / "page.html")
    text = words(made)
    assert "1 scan could not be used and is in no other section" in text
    assert "Got NaN or infinity at time point 4, region 2, in scan 3" in text
    assert "FeatureClassifier on 13 scans" in text


def test_files_that_cannot_be_used_are_listed_and_left_out(
    classifier, small, tmp_path
) -> None:
    X = small.data[["participant_id", "fmri"]].copy()
    series = X["fmri"][2].copy()
    series[0, 0] = np.inf
    np.save(tmp_path / "bad.npy", series)
    X["fmri"] = X["fmri"].astype(object)
    X.loc[2, "fmri"] = tmp_path / "bad.npy"
    made = make_report(classifier, X, path=tmp_path / "page.html")
    assert "Got NaN or infinity at time point 0" in words(made)
    assert "FeatureClassifier on 13 scans" in words(made)


def test_constant_regions_count_by_what_the_model_does_with_them(
    classifier, small, tmp_path
) -> None:
    X = small.data.copy()
    X["fmri"] = [x.copy() for x in X["fmri"]]
    X.loc[5, "fmri"][:, 0] = 1.0
    path = tmp_path / "page.html"
    assert "left out" in words(make_report(classifier, X, path=path))
    assert "could not be used" not in words(path)
    strict = NetworkClassifier(**FAST).fit(small.data, small.target)
    assert "1 of 8 regions never change" in words(make_report(strict, X, path=path))


def test_no_usable_scan_is_an_error(classifier, small, tmp_path) -> None:
    X = [np.full((40, 8), np.nan)] * 2
    with pytest.raises(BrainDataError, match="make_report needs finite values"):
        make_report(classifier, X, path=tmp_path / "page.html")
    with pytest.raises(BrainDataError, match="the same number of regions"):
        make_report(
            classifier,
            [np.eye(40)[:, :8], np.eye(40)[:, :9]],
            path=tmp_path / "page.html",
        )


def test_scans_that_are_there_twice_are_a_warning(classifier, small, tmp_path) -> None:
    X = pd.concat([small.data, small.data.iloc[[0]]], ignore_index=True)
    made = make_report(classifier, X, path=tmp_path / "page.html")
    assert "2 scans have the same values as another one: 0 (sub-01), 14 (" in words(
        made
    )


def test_the_page_says_whether_people_were_learned_from(small, tmp_path) -> None:
    X, y = small.data, small.target
    model = NetworkClassifier(**FAST).fit(X.iloc[:10], y[:10])
    path = tmp_path / "page.html"
    said = words(make_report(model, X, y, path=path))
    assert (
        "fitted on 10 of these 14 participants: to that extent they are those" in said
    )
    said = words(make_report(model, X.iloc[:10], y[:10], path=path))
    assert "fitted on 10 of these 10 participants: the scores are those" in said
    said = words(make_report(model, X.iloc[10:], y[10:], path=path))
    assert "fitted on none of these 4 participants" in said
    nameless = X.drop(columns="participant_id")
    said = words(make_report(model, nameless, y, path=path))
    assert "is not known: the model or the scans do not name them" in said


def test_predictions_without_a_target_have_no_score(
    classifier, small, tmp_path
) -> None:
    made = make_report(classifier, small.data, path=tmp_path / "page.html")
    assert "probability of 1" in words(made)
    assert "balanced accuracy" not in words(made)


def test_a_comparison_is_told_drawn_and_tabled(hostile_page) -> None:
    text = words(hostile_page)
    assert "Best AUROC of 2 models over 2 splits" in text
    assert "Models by AUROC, the best first" in text
    alts = [str(image["alt"]) for image in read(hostile_page).all("img")]
    assert any(alt.startswith("Models by AUROC") for alt in alts)


def test_reproducibility_names_hashes_versions_and_code(small, tmp_path) -> None:
    X = small.data
    model = NetworkClassifier(**FAST).fit(X, small.target)
    path = tmp_path / "page.html"
    first = words(make_report(model, X, path=path, max_scans=2))
    again = words(make_report(model, X.copy(), path=path, max_scans=2))
    other = words(make_report(model, X[::-1], path=path, max_scans=2))
    hashes = [
        set(re.findall(r"\b[0-9a-f]{64}\b", text)) for text in (first, again, other)
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0] & hashes[2]) == 1  # the weights, not the order of the scans
    assert "model = NetworkClassifier(max_epochs=2, random_state=0)" in first
    assert "make_report(model, X, path='page.html', max_scans=2" in first
    assert "torch" in first


def test_folders_of_the_machine_are_not_shown(small, tmp_path) -> None:
    X, folder = small.data, tmp_path / "weights"
    BrainJEPAEmbedder(patch_size=5, **FAST).fit(X[["fmri"]]).save_pretrained(folder)
    model = BrainJEPAClassifier(pretrained=str(folder), **FAST).fit(X, small.target)
    made = make_report(model, X, path=tmp_path / "page.html")
    assert "pretrained='weights'" in words(made)
    assert str(tmp_path) not in made.read_text(encoding="utf-8")


def test_given_networks_and_places_have_to_fit(classifier, small, tmp_path) -> None:
    path = tmp_path / "page.html"
    with pytest.raises(ValueError, match=r"one name per region\. Got 2 for 8"):
        make_report(classifier, small.data, path=path, networks=["a", "b"])
    with pytest.raises(ValueError, match=r"needs shape \(8, 3\), in mm"):
        make_report(classifier, small.data, path=path, coordinates=[[0, 0, 0]])
    with pytest.raises(BrainDataError, match="one target per scan"):
        make_report(classifier, small.data, small.target[:3], path=path)
    assert not path.exists()


def test_only_fitted_models_have_a_page(small, tmp_path) -> None:
    with pytest.raises(NotFittedError):
        make_report(FeatureClassifier(), small.data, path=tmp_path / "page.html")


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_a_missing_library_is_named(
    name, classifier, small, tmp_path, monkeypatch
) -> None:
    find = page.importlib.util.find_spec
    monkeypatch.setattr(
        page.importlib.util, "find_spec", lambda x: None if x == name else find(x)
    )
    with pytest.raises(ImportError, match=rf'{name}.*"bsym_sklearn\[report\]"'):
        make_report(classifier, small.data, path=tmp_path / "page.html")


def test_arrays_without_any_name_have_a_page(tmp_path, rng) -> None:
    X = rng.normal(size=(8, 30, 5))
    model = FeatureRegressor("amplitude").fit(X, np.arange(8.0))
    made = make_report(model, list(X), np.arange(8.0), path=tmp_path / "page.html")
    assert sections(made) == [*ALWAYS, "predictions", *END]


def test_numbers_of_a_table_sort_by_all_their_digits() -> None:
    table = make_table(
        pd.DataFrame({"p": [1e-5, 0.5, np.nan]}), "a", formats={"p": "p"}
    )
    cells = [row[0] for row in table.rows]
    assert [cell.text for cell in cells] == ["<0.001", "0.500", "\N{EN DASH}"]
    assert [cell.key for cell in cells] == ["1e-05", "0.5", ""]


def test_scikit_learn_still_shows_estimators_in_notebooks(classifier) -> None:
    assert "sk-container" in classifier._repr_html_()
