"""Files that torch 2.13 itself wrote, with all that Lightning keeps beside the weights."""

import argparse
import collections
import pathlib
import zipfile

import numpy as np
import pytest

from nisbjax.errors import InputError
from nisbjax.models.foreign.torch_import import open_foreign, read_state_dict, to_model

twin = pytest.importorskip("torch_mednext")
torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def network():
    return twin.fill(twin.MedNeXt("S", 3, channels=2))


def lightning(network, prefix):
    """What both trainers save, with an optimizer that has taken a step."""
    network(torch.rand(1, 1, 16, 16, 32)).sum().backward()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    state = {prefix + name: value for name, value in network.state_dict().items()}
    return {
        "epoch": 9,
        "global_step": 50_000,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict(state),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': 'val_loss'}": {
                "best_model_score": torch.tensor(0.25),
                "best_k_models": {"/a/b.ckpt": torch.tensor(0.25)},
            }
        },
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "kwargs",
    }


def banis(network):
    content = lightning(network, "model._orig_mod.")
    content["best_thr_so_far"] = collections.defaultdict(float, {"val": 0.7})
    content["best_nerl_so_far"] = collections.defaultdict(float)
    content["hyper_parameters"] = {"model_id": "S", "kernel_size": 3, "seed": None}
    return content


def pytc(network, average):
    content = lightning(network, "model.model.")
    content["state_dict"]["loss_functions.0.pos_weight"] = torch.ones(6)
    content["hyper_parameters"] = {
        "cfg": argparse.Namespace(size=3, nested=argparse.Namespace(a=1)),
        "path": pathlib.PurePosixPath("/data/seed0"),
        "threshold": np.float64(0.75),
        "count": np.int64(3),
        "table": np.arange(4.0),
        "kind": np.dtype("float32"),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "generator": torch.Generator().get_state(),
    }
    if average is not None:
        state = {"model." + name: value for name, value in average.items()}
        content["callbacks"]["EMAWeightsCallback{'decay': 0.999}"] = {
            "ema_state": state,
            "updates": 50_000,
            "decay": 0.999,
        }
    content["pytc_metadata"] = {"format_version": 1, "model_arch": "mednext"}
    return content


def save(path, content):
    torch.save(content, path)
    return path


def assert_weights(got, wanted):
    """Names but for their prefixes, and values."""
    assert len(got) >= len(wanted)
    for name, value in wanted.items():
        (found,) = [v for n, v in got.items() if n.endswith("." + name) or n == name]
        np.testing.assert_array_equal(found, value.detach().numpy())


def test_a_checkpoint_of_banis(tmp_path, network):
    path = save(tmp_path / "last.ckpt", banis(network))
    with pytest.raises(Exception, match="defaultdict"):
        torch.load(path, weights_only=True)  # why this reader exists
    state = read_state_dict(path)
    assert_weights(state, network.state_dict())
    assert open_foreign(path).step == 50_000
    assert to_model(state).stem.weight.shape == (1, 2)


def test_a_checkpoint_of_pytc_with_and_without_average(tmp_path, network):
    average = {name: value * 0.5 for name, value in network.state_dict().items()}
    path = save(tmp_path / "step=00050000.ckpt", pytc(network, average))
    raw, ema = read_state_dict(path, "raw"), read_state_dict(path, "ema")
    assert_weights(raw, network.state_dict())
    assert_weights(ema, average)
    assert read_state_dict(path).keys() == ema.keys()
    assert to_model(raw).stem.weight.shape == to_model(ema).stem.weight.shape
    old = save(tmp_path / "old.ckpt", pytc(network, None))
    assert_weights(read_state_dict(old), network.state_dict())


def test_plain_files(tmp_path, network):
    wanted = network.state_dict()
    plain = save(tmp_path / "plain.pth", wanted)
    assert_weights(read_state_dict(plain), wanted)
    nested = save(tmp_path / "nested.pt", {"state_dict": wanted, "epoch": 3})
    assert_weights(read_state_dict(nested), wanted)
    parallel = {"module." + name: value for name, value in wanted.items()}
    assert to_model(read_state_dict(save(tmp_path / "p.pt", parallel)))
    # Parameters rather than their values, as `dict(model.named_parameters())` is.
    parameters = save(tmp_path / "q.pt", dict(network.named_parameters()))
    assert_weights(read_state_dict(parameters), wanted)


def test_tensors_of_every_kind(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "turned": base.permute(2, 0, 1),
        "part": base[1, :, 1:3],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "truth": base > 3,
    }
    state = read_state_dict(save(tmp_path / "x.pt", tensors))
    for name, value in tensors.items():
        wanted = (value.float() if name == "brain" else value).numpy()
        np.testing.assert_array_equal(state[name], wanted)
        assert state[name].dtype == wanted.dtype


class Exploit:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(self.mark),))


def test_an_exploit_does_not_run(tmp_path, network):
    mark = tmp_path / "mark"
    content = banis(network) | {"hook": Exploit(mark), "more": [Exploit(mark)]}
    path = save(tmp_path / "evil.ckpt", content)
    assert_weights(read_state_dict(path), network.state_dict())
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it was a real one


def test_truncated_files(tmp_path, network):
    path = save(tmp_path / "whole.ckpt", banis(network))
    content = path.read_bytes()
    torn = tmp_path / "torn.ckpt"
    for share in (0.0, 0.01, 0.3, 0.9, 0.999):
        torn.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match="is not a torch checkpoint"):
            read_state_dict(torn)


def test_a_zip_bomb(tmp_path, network):
    """The same entries deflated: what torch never writes."""
    path = save(tmp_path / "whole.ckpt", {"w": torch.zeros(1 << 22)})
    bomb = tmp_path / "bomb.ckpt"
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < path.stat().st_size / 100
    with pytest.raises(InputError, match="compressed entries"):
        read_state_dict(bomb)


def test_the_format_before_torch_1_6_is_refused(tmp_path, network):
    path = tmp_path / "old.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"is not a torch checkpoint \(zip archive\)"):
        read_state_dict(path)
