"""What a study chose, as it is read: PyTC's, other types, other content, other methods."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.tune import best_params


@pytest.fixture
def config():
    return base_config()


def test_parameters_of_pytc_that_are_not_ours_are_left_out(config):
    found = {
        "decoding_function": "decode_affinity_cc",
        "decoding_params": {"threshold": 0.66, "backend": "numba", "min_size": 5.0},
    }
    chosen = best_params.parameters(config.decode, found, "best_params.yaml")
    assert chosen == {"threshold": 0.66, "min_size": 5}


def test_parameters_of_a_method_without_a_threshold(config, tmp_path):
    config.decode.method = "chain"
    path = tmp_path / "best_params.yaml"
    text = "decoding_function: chain\ndecoding_params: {attract: 0.4, repel: -0.25}\n"
    path.write_text(text)
    best = best_params.read(path)
    chosen = best_params.parameters(config.decode, best, path)
    assert chosen == {"attract": 0.4, "repel": -0.25}
    config.decode.method = "chain3"  # has one
    best["decoding_function"] = "chain3"
    with pytest.raises(InputError, match="decoding_params.threshold is missing"):
        best_params.parameters(config.decode, best, path)


def test_best_params_that_are_missing_or_empty(tmp_path):
    path = tmp_path / "best_params.yaml"
    with pytest.raises(InputError, match="no tuned parameters at .*; run --mode=tune"):
        best_params.read(path)
    path.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        best_params.read(path)


def test_best_params_that_were_cut_or_changed_are_refused(tmp_path):
    text = b"decoding_params:\n  threshold: 0.46\n"
    # sha256sum of those two lines
    digest = b"2f8598c45e9a2454f620da721d4fcc58dd0b27270f21d650f059d9d09bcb9c12"
    path = tmp_path / "best_params.yaml"
    whole = b"# sha256 of the lines below: " + digest + b"\n" + text
    path.write_bytes(whole)
    assert best_params.read(path)["decoding_params"] == {"threshold": 0.46}
    for harmed in (whole[:-2], whole.replace(b"0.46", b"0.64")):
        path.write_bytes(harmed)
        with pytest.raises(
            InputError, match="params.yaml changed since .* run --mode="
        ):
            best_params.read(path)
    path.write_bytes(text.replace(b"0.46", b"0.64"))  # by hand, and without the line
    assert best_params.read(path)["decoding_params"] == {"threshold": 0.64}


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\ndecoding_params: {threshold: .5, b: *b}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is null; wanted the keys decoding_params"),
        (b"a: [", "line 1: "),
        (b"[1, 2]", "wanted the keys decoding_params"),
        (
            b"decoding_params: {}",
            "decoding_params.threshold is missing; wanted a number in",
        ),
        (
            b"decoding_params: {threshold: high}",
            "threshold is 'high'; wanted a number in",
        ),
        (
            b"decoding_params: {threshold: [0.5]}",
            "threshold is .0.5.; wanted a number in",
        ),
        (b"decoding_params: {threshold: .nan}", "threshold is nan; wanted a number in"),
        (b"decoding_params: {threshold: 1.5}", "threshold is 1.5; wanted .* in .0, 1."),
        (
            b"decoding_params: {threshold: true}",
            "threshold is True; wanted a number in",
        ),
        (b"decoding_params: {threshold: .5}\ntest_data_used: 3", "test_data_used is 3"),
        (b"decoding_params: {threshold: .5}\ndecoding_function: 7", "function is 7"),
        (BOMB.encode(), "an alias"),
        ("# \xe9\n".encode("latin-1"), "is not UTF-8"),
        (b"#" * 2_000_000, "has more than 1000000 bytes"),
        (b"!!python/object/apply:os.getpid []", "could not determine a constructor"),
    ],
)
def test_best_params_of_other_types(tmp_path, content, message):
    path = tmp_path / "best_params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"best_params.yaml.*{message}"):
        best_params.read(path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"min_size": -1},
            "best_params.yaml: min_size is -1; wanted a whole number, 0 ",
        ),
        ({"min_size": 5.5}, "min_size is 5.5; wanted a whole number"),
        ({"min_size": "5"}, "min_size is '5'; wanted a whole number"),
        ({"min_seed": math.inf}, "min_seed is inf; wanted a whole number"),
        ({"low_threshold": 2}, "low_threshold is 2; wanted a number in .0, 1."),
        ({"low_threshold": None}, "low_threshold is None; wanted a number"),
    ],
)
def test_tuned_parameters_that_decoding_does_not_take(config, parameters, message):
    config.decode.method = "grow"
    found = {"decoding_params": {"threshold": 0.6, **parameters}}
    with pytest.raises(InputError, match=message):
        best_params.parameters(config.decode, found, "best_params.yaml")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=6,
)
KEYS = st.sampled_from(["threshold", "min_size", "low_threshold", "min_seed"])


@given(
    st.fixed_dictionaries(
        {"decoding_params": ANY | st.dictionaries(KEYS | st.text(), ANY)},
        optional={"decoding_function": ANY, "test_data_used": ANY, "storage": ANY},
    )
    | ANY
)
@settings(max_examples=60, deadline=None)
def test_best_params_of_any_content_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("best") / "best_params.yaml"
    path.write_text(yaml.dump(content), encoding="utf-8")
    config = base_config()
    config.decode.method = "grow"
    try:
        best = best_params.read(path)
        chosen = best_params.parameters(config.decode, best, path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= chosen["threshold"] <= 1
