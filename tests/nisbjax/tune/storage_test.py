"""Databases of studies and journals: whole, foreign, damaged, busy."""

import contextlib
import os
import sqlite3

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy import exc as sql_errors

from nisbjax.errors import InputError
from nisbjax.tune import storage

MADE = {"prediction": "a", "mask": "none"}


@pytest.fixture(params=["tuning.db", "tuning.journal"])
def path(request, tmp_path):
    return str(tmp_path / request.param)


def test_opens_again_with_its_trials(path):
    storage.open_study(path, "tuning", MADE).enqueue_trial({"threshold": 0.4})
    assert len(storage.open_study(path, "tuning", MADE).trials) == 1


def test_sqlite_url_is_the_file(tmp_path):
    storage.open_study(f"sqlite:///{tmp_path}/a.db", "tuning", MADE)
    assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/a.db") == ["tuning"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_of_other_inputs(path):
    storage.open_study(path, "tuning", MADE)
    with pytest.raises(
        InputError, match=r"scored other prediction \(prediction: 'a', now"
    ):
        storage.open_study(path, "tuning", {"prediction": "b", "mask": "none"})


def test_of_another_name(path):
    storage.open_study(path, "theirs", MADE)
    with pytest.raises(
        InputError, match="holds the studies theirs, not tuning; name one"
    ):
        storage.open_study(path, "tuning", MADE)


def url_or_storage(path):
    if path.endswith(".db"):
        return f"sqlite:///{path}"
    backend = optuna.storages.journal.JournalFileBackend(path)
    return optuna.storages.JournalStorage(backend)


def foreign(path, **options) -> optuna.Study:
    """A study of the same name that another program makes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options = {"direction": "maximize", **options}
    return optuna.create_study(
        storage=url_or_storage(path), study_name="tuning", **options
    )


def with_trials(path):
    foreign(path).optimize(lambda trial: trial.suggest_float("threshold", 0, 1), 2)


def with_pytc_grid(path):
    sampler = optuna.samplers.GridSampler({"threshold": [0.4, 0.6]})
    foreign(path, sampler=sampler).optimize(
        lambda trial: trial.suggest_categorical("threshold", [0.4, 0.6])
    )


def with_a_trial_that_waits(path):
    foreign(path).enqueue_trial({"threshold": 0.5})


def with_attributes(path):
    foreign(path).set_user_attr("made_by", "pytc")


def with_words_for_made_from(path):
    foreign(path).set_user_attr("made_from", "a prediction")


def to_minimize(path):
    foreign(path, direction="minimize")


def with_two_directions(path):
    foreign(path, direction=None, directions=["maximize", "minimize"])


def a_loss_under_our_name(path):
    foreign(path, direction="minimize").set_user_attr("made_from", MADE)


def appended_to_ours(path):
    """By a program that knows the study by its name alone."""
    storage.open_study(path, "tuning", MADE)
    optuna.load_study(study_name="tuning", storage=url_or_storage(path)).optimize(
        lambda trial: trial.suggest_float("threshold", 0, 1), 1
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            with_trials,
            "another program's .nothing says what its 2 trials scored.; move",
        ),
        (with_pytc_grid, "another program's .nothing says what its 2 trials scored"),
        (with_a_trial_that_waits, "nothing says what its 1 trials scored"),
        (with_attributes, "another program's .nothing says what its 0 trials scored"),
        (with_words_for_made_from, "nothing says what its 0 trials scored"),
        (to_minimize, "another program's .its direction is minimize, not maximize"),
        (with_two_directions, "direction is maximize, minimize, not maximize"),
        (a_loss_under_our_name, "direction is minimize, not maximize"),
        (
            appended_to_ours,
            "holds 1 trials that another program added .the first is tri",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_study_of_another_program_is_refused_and_left_as_it_is(path, make, message):
    make(path)
    with open(path, "rb") as file:
        before = file.read()
    for _ in range(2):
        with (
            pytest.raises(InputError, match=message),
            storage.reserved(path, alone=True),
        ):
            storage.open_study(path, "tuning", MADE)
    with open(path, "rb") as file:
        assert file.read() == before
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_a_study_without_trials_is_taken(path):
    """Nothing in it can win: `optuna create-study`, or a kill of an earlier version."""
    foreign(path)
    opened = storage.open_study(path, "tuning", MADE)
    assert opened.user_attrs == {"made_from": MADE}


def test_trials_of_ours_are_known_by_their_host(path):
    opened = storage.open_study(path, "tuning", MADE)
    trial = create_trial(
        value=0.5,
        params={"threshold": 0.4},
        distributions={"threshold": FloatDistribution(0, 1)},
        user_attrs={"host": "elsewhere"},
    )
    opened.add_trial(trial)
    (found,) = storage.open_study(path, "tuning", MADE).trials
    assert found.state == TrialState.COMPLETE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database or disk is full", "cannot be written: the disk is full; free space"),
        (
            "attempt to write a readonly database",
            "cannot be written: it or its folder is read-only, or it was moved away",
        ),
        (
            "unable to open database file",
            "cannot be opened: it, its folder or what SQL",
        ),
        ("disk I/O error", "cannot be read or written: .* input/output error .a quota"),
        ("database is locked", "has been locked by another process for 30 s"),
        ("database disk image is malformed", "cannot be read .* it is damaged"),
    ],
)
def test_what_sqlite_says(text, message):
    error = sqlite3.OperationalError(text)
    wrapped = sql_errors.OperationalError("INSERT ...", {}, error)
    raised = optuna.exceptions.StorageInternalError("commit")
    raised.__cause__ = wrapped
    for each in (error, wrapped, raised):
        with (
            pytest.raises(InputError, match=f"the study in a.db {message}"),
            storage.clear_errors("a.db"),
        ):
            raise each


def test_a_database_that_has_no_room(tmp_path):
    path = str(tmp_path / "tuning.db")
    opened = storage.open_study(path, "tuning", MADE)
    connection = opened._storage._backend.engine  # every connection of it is limited
    with connection.connect() as limited:
        (pages,) = limited.exec_driver_sql("PRAGMA page_count").one()
        limited.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with (
        pytest.raises(InputError, match="the disk is full; free space and run again"),
        storage.clear_errors(path),
    ):
        for _ in range(100):
            opened.enqueue_trial({"threshold": 0.4}, user_attrs={"text": "x" * 2000})
    assert storage.open_study(path, "tuning", MADE).user_attrs == {"made_from": MADE}


@pytest.fixture
def nowhere(tmp_path):
    """Paths at which nothing can be kept."""
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "file").write_text("text")
    os.mkfifo(tmp_path / "pipe.journal")
    (tmp_path / "dangling.db").symlink_to(tmp_path / "no" / "such.db")
    (tmp_path / "loop.db").symlink_to("loop.db")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.db", "tune.storage is .*folder.db, a folder; name another file"),
        ("pipe.journal", "pipe.journal, a device, pipe or socket; name another"),
        ("/dev/full", "tune.storage is /dev/full, a device"),
        ("file/tuning.db", "no study can be kept in .*file is no folder"),
        ("dangling.db", "a link to what is not there"),
        ("loop.db", "a link to what is not there"),
        ("a\0b.db", "with a null byte"),
        ("x" * 300 + ".db", "no study can be kept in .*File name too long"),
        ("sqlite://", "which is no file and gone when the process ends"),
        ("sqlite:///:memory:", "which is no file and gone"),
    ],
)
def test_where_no_study_can_be_kept(nowhere, name, message):
    where = name if "://" in name else str(nowhere / name)
    before = sorted(nowhere.rglob("*"))
    with pytest.raises(InputError, match=message), storage.reserved(where, alone=True):
        pass
    with pytest.raises(InputError, match=message):
        storage.open_study(where, "tuning", MADE)
    assert sorted(nowhere.rglob("*")) == before


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no study can be kept in .*cannot be written"):
        storage.open_study(str(tmp_path / "tuning.db"), "tuning", MADE)


def test_a_server_is_named_without_its_password():
    with pytest.raises(
        InputError, match=r"server nosuch://me:\*\*\*@host/db cannot be used .*nosuch"
    ):
        storage.open_study("nosuch://me:secret@host/db", "tuning", MADE)


def test_damaged_database(tmp_path):
    path = tmp_path / "tuning.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(InputError, match=r"cannot be read \(file is not a database\)"):
        storage.open_study(str(path), "tuning", MADE)


def test_database_with_damaged_pages(tmp_path):
    path = tmp_path / "tuning.db"
    storage.open_study(str(path), "tuning", MADE)
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))
    with pytest.raises(
        InputError, match="cannot be read .* move it away and tune again"
    ):
        storage.open_study(str(path), "tuning", MADE)


def test_a_database_with_a_state_that_optuna_does_not_know(tmp_path):
    path = tmp_path / "tuning.db"
    storage.open_study(str(path), "tuning", MADE)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "INSERT INTO trials (number, study_id, state) VALUES (0, 1, 'ODD')"
        )
        database.commit()
    with pytest.raises(InputError, match="cannot be read .*'ODD' is not among"):
        storage.open_study(str(path), "tuning", MADE)


def test_damaged_journal(tmp_path):
    path = tmp_path / "tuning.journal"
    storage.open_study(str(path), "tuning", MADE)
    path.write_bytes(b"{not json\n" + path.read_bytes())
    with pytest.raises(InputError, match="cannot be read .* move it away"):
        storage.open_study(str(path), "tuning", MADE)


def test_a_database_of_another_program(tmp_path):
    path = tmp_path / "tuning.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (id INTEGER)")
        database.commit()
    with pytest.raises(InputError, match="a SQLite database without Optuna's tables"):
        storage.open_study(str(path), "tuning", MADE)


def test_a_database_locked_by_another_program(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BUSY_SECONDS", 0.1)
    path = tmp_path / "tuning.db"
    storage.open_study(str(path), "tuning", MADE)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            InputError, match="has been locked by another process for 0.1"
        ):
            storage.open_study(str(path), "tuning", MADE)
