"""Files: written whole or not at all, one run at a time, runs of other settings refused."""

import pytest

from incontext import InputError
from incontext.checkpoints.checkpoint import read_config
from incontext.data.pictures import class_names, read_metadata
from incontext.files import atomic, check_same_settings, exclusive, is_locked, try_lock
from incontext.training.run_log import read_rows


class TestAtomic:
    def test_replaces_the_file_at_the_end(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text("before")
        with atomic(path) as draft:
            draft.write_text("after")
            assert path.read_text() == "before"
            assert draft == tmp_path / ".a.json.part"
        assert path.read_text() == "after"
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def test_failure_leaves_the_old_file_and_no_draft(self, tmp_path):
        path = tmp_path / "a.json"
        path.write_text("before")

        def write() -> None:
            with atomic(path) as draft:
                draft.write_text("half of it")
                raise RuntimeError("stopped")

        with pytest.raises(RuntimeError, match="stopped"):
            write()
        assert path.read_text() == "before"
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def test_failure_without_a_draft(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "a.json"):
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())

    def test_failure_to_replace_leaves_no_draft(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(OSError, match="a"), atomic(tmp_path / "a") as draft:
            draft.write_text("text")
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_makes_the_folder(self, tmp_path):
        with atomic(tmp_path / "deep/er/a.txt") as draft:
            draft.write_text("text")
        assert (tmp_path / "deep/er/a.txt").read_text() == "text"

    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("text")
        with pytest.raises(OSError, match="file"), atomic(tmp_path / "file/a.txt"):
            pass

    def test_draft_of_a_killed_writer_is_replaced(self, tmp_path):
        (tmp_path / ".a.txt.part").write_text("a longer text of a writer that was killed")
        with atomic(tmp_path / "a.txt") as draft:
            draft.write_text("text")
        assert (tmp_path / "a.txt").read_text() == "text"
        assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


class TestSameSettings:
    def test_same(self):
        check_same_settings({"a": 1, "b": [2]}, {"b": [2], "a": 1}, "out", "pass another folder")

    def test_a_setting_that_is_missing_counts_as_none(self):
        check_same_settings({"a": 1}, {"a": 1, "b": None}, "out", "pass another folder")

    def test_differences_are_named(self):
        text = r"^out holds a run made with other settings \(a, c, d\); pass --x$"
        before, now = {"a": 1, "b": 2, "c": 3}, {"a": 4, "b": 2, "d": 5}
        with pytest.raises(InputError, match=text):
            check_same_settings(before, now, "out", "pass --x")


def test_one_run_at_a_time(tmp_path):
    with exclusive(tmp_path / "run"):
        assert is_locked(tmp_path / "run/.lock")
        with pytest.raises(InputError, match="another run is using"), exclusive(tmp_path / "run"):
            pass
    assert not is_locked(tmp_path / "run/.lock")
    with exclusive(tmp_path / "run"):
        pass


def test_no_folder_needs_no_lock():
    with exclusive(None):
        pass


def test_lock_lasts_as_long_as_its_file_is_open(tmp_path):
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("w") as second:
        assert try_lock(first)
        assert not try_lock(second)
    assert not is_locked(tmp_path / "a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_tables_and_settings_with_a_byte_order_mark(tmp_path, encoding):
    """As Excel and PowerShell save them."""
    table, settings = tmp_path / "log.csv", tmp_path / "set.json"
    table.write_text("step,loss\r\n1,0.5\r\n", encoding=encoding, newline="")
    assert read_rows(table) == [{"step": "1", "loss": "0.5"}]
    settings.write_text('{"domain": "x", "classes": {"2": "cät"}}', encoding=encoding)
    assert class_names(read_metadata(settings.with_suffix(""))) == {2: "cät"}
    config = tmp_path / "config.json"
    config.write_text('{"depth": 3}', encoding=encoding)
    assert read_config(tmp_path / "model.safetensors") == {"depth": 3}


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    """Writing to an open file, as Pillow does, raises an error that names none."""
    path = tmp_path / "a.png"
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomic(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert caught.value.filename == str(path)
    assert not path.exists()
