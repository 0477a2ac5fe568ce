"""What is the test volume's is not tuned on without an explicit word."""

import pickle

import networkx as nx
import pytest

from nisbjax.config import base_config
from nisbjax.errors import InputError
from nisbjax.modes import tuning
from nisbjax.modes.volumes import Split


@pytest.fixture
def config(tmp_path):
    """A test volume: an image, of which only the path counts, and a skeleton."""
    (tmp_path / "test/img").mkdir(parents=True)
    graph = nx.Graph()
    graph.add_node(0, id=1, index_position=(0, 0, 0))
    (tmp_path / "test/skeleton.pkl").write_bytes(pickle.dumps(graph))
    config = base_config()
    config.data.root = str(tmp_path)
    config.data.test.image = "test/img"
    config.data.test.skeleton = "test/skeleton.pkl"
    return config


@pytest.fixture
def other(tmp_path):
    """Skeletons of another volume."""
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(nx.Graph()))
    return str(path)


def test_skeletons_of_the_test_volume(config, tmp_path):
    copy = tmp_path / "copy.pkl"
    copy.write_bytes((tmp_path / "test/skeleton.pkl").read_bytes())
    with pytest.raises(
        InputError, match="copy.pkl belongs to the test volume, which th"
    ):
        tuning.guard_test_data(config, str(copy))
    config.tune.allow_test_data = True
    assert tuning.guard_test_data(config, str(copy))


def test_its_image_under_other_skeletons(config, other, tmp_path):
    same = str(tmp_path / "test" / ".." / "test" / "img")
    with pytest.raises(InputError, match="test/img belongs to the test volume"):
        tuning.guard_test_data(config, other, same)
    assert not tuning.guard_test_data(config, other, str(tmp_path))
    assert not tuning.guard_test_data(config, other, str(tmp_path / "nowhere"))
    assert not tuning.guard_test_data(config, other)


def test_a_configuration_without_a_test_volume(config, other, tmp_path):
    config.data.test.image = config.data.test.skeleton = ""
    assert not tuning.guard_test_data(config, other, str(tmp_path))


def test_the_truth_of_a_study(config):
    val = Split("img", "seg", "skeleton.pkl")
    without = Split("img", "seg", "")

    def paths(objective, split):
        config.tune.objective = objective
        truth = tuning.truth_of(config, split)
        return truth.skeleton, truth.label

    assert paths("auto", val) == paths("voi", val) == ("skeleton.pkl", "")
    assert paths("auto", without) == paths("voi", without) == ("", "seg")
    # one flag, nothing has to be emptied
    assert paths("adapted_rand", val) == ("", "seg")
    config.tune.objective = "auto"
    with pytest.raises(
        InputError,
        match="no skeleton at skeleton.pkl; .* --config.data.val.skeleton=FILE, or tune "
        "by dense labels with --config.tune.objective=adapted_rand",
    ):
        tuning.truth_of(config, val).load_skeletons()
