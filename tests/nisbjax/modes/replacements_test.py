"""What the log says of `--redo` before anything is removed."""

import pathlib

from nisbjax.artifacts import TuneDir, VolumeDir
from nisbjax.config import base_config
from nisbjax.modes import replacements
from nisbjax.modes.outputs import NamedOutputs


def test_what_is_there_is_named_in_one_line(tmp_path, caplog):
    caplog.set_level("INFO")
    a, b, gone = (tmp_path / name for name in ("a.zarr", "b.zarr", "gone.zarr"))
    a.mkdir()
    b.mkdir()
    replacements.say(("predict", "decode"), [a, gone, a, b])
    replacements.say(("predict", "decode"), [a, b], told=[a])
    replacements.say(("predict",), [a], told=[a])
    replacements.say((), [a])
    replacements.say(("decode",), [gone])
    assert caplog.messages == [
        f"--redo=predict,decode replaces {a}, {b}",
        f"--redo=predict,decode replaces {b}",
        "--redo=decode has nothing to replace yet",
    ]


def test_only_what_stages_that_were_asked_for_made():
    config = base_config()
    config.predict.format = "h5"
    place = VolumeDir(pathlib.Path("run"))
    study = TuneDir(pathlib.Path("run"))

    def of(*redo):
        named = NamedOutputs(redo=redo)
        return [
            *replacements.of_prediction(config, place, named),
            *replacements.of_segmentation(config, place, named, {"threshold": 0.25}),
            *replacements.of_study(config, study, named),
        ]

    assert of("predict") == [place.raw("zarr", config.predict.channels), place.raw()]
    assert [path.suffix for path in of("predict")] == [".zarr", ".h5"]
    (decoded,) = of("decode")
    assert "0.25" in decoded.name
    assert of("tune") == [study.database(config.tune.study)]
    assert of() == []
