"""Journals of many writers, cut off anywhere, and what is folded of them: one entry each."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incontext import InputError
from incontext.batch.inputs import UNSHARDED, InputImage, Shard
from incontext.batch.journal import read_journal
from incontext.batch.manifest import Manifest, exclusive_run
from incontext.batch.records import read_all
from incontext.files import is_locked
from incontext.inference.prompt import Prompt

SETTINGS = {"a": 1}


def target(name: str) -> InputImage:
    return InputImage(Path("/in") / f"{name}.png", name)


def entry(name: str, pixels: int = 0) -> dict:
    source = {"path": f"/in/{name}.png", "bytes": 1, "modified_ns": 1}
    files = {"labels": f"{name}.png"}
    return {"source": source, "size": [1, 1], "files": files, "ids": {"1": {"pixels": pixels}}}


PROMPT = Prompt((1,), {1: (1, 2, 3)}, {1: "one"}, "semantic", 1, (), "")


def opened(
    folder: Path, shard: Shard = UNSHARDED, overwrite: bool = False, **changes: int
) -> Manifest:
    return Manifest.open(folder, SETTINGS | changes, PROMPT, overwrite, shard)


def names_of(path: Path) -> list[str]:
    """As they stand in the file: twice would be twice."""
    pairs: list[str] = []

    def keep(found):
        if found and all(isinstance(v, dict) and "source" in v for _, v in found):
            pairs.extend(name for name, _ in found)
        return dict(found)

    json.loads(path.read_text(), object_pairs_hook=keep)
    return pairs


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["begin", "done", "fail"]),
        st.sampled_from("abcdé\udcff"),
    ),
    max_size=25,
)


@given(EVENTS, st.lists(st.integers(0, 100), min_size=3, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_interleaving_cut_off_anywhere(events, cuts, before):
    """What has a whole line in any journal has one entry; what only failed is named once."""
    with tempfile.TemporaryDirectory() as space:
        folder = Path(space)
        first = opened(folder)
        if before:
            first.results["a"] = entry("a", 7)
            first.results["z"] = entry("z", 7)
            first.save()
        writers = [first.open_journal() for _ in range(3)]
        for number, what, name in events:
            if what == "begin":
                writers[number].begin([target(name)])
            elif what == "done":
                writers[number].finish(target(name), entry(name))
            else:
                writers[number].fail(target(name), "no")
        done, failed = set(), set()
        for writer, cut in zip(writers, cuts, strict=True):
            writer.file.close()
            whole = writer.path.read_bytes()
            whole = whole[: len(whole) * cut // 100]
            writer.path.write_bytes(whole)
            last = {}
            for line in whole.split(b"\n")[1:-1]:
                said = json.loads(line)
                last |= {said[what]: what for what in ("done", "failed") if what in said}
            done |= {name for name, what in last.items() if what == "done"}
            failed |= {name for name, what in last.items() if what == "failed"}
        expected = done | ({"a", "z"} - (failed - done) if before else set())
        assert set(read_all(folder)[1]) == expected
        with opened(folder).collect_journals():
            pass
        assert names_of(folder / "results.json") == sorted(expected)
        assert not (folder / ".run").exists()
        assert set(opened(folder).results) == expected


def test_failures_are_kept_until_the_next_run(tmp_path):
    manifest = opened(tmp_path)
    with manifest.collect_journals(), manifest.open_journal() as journal:
        journal.fail(target("a"), "no")
        journal.fail(target("b"), "no")
    with manifest.collect_journals(), manifest.open_journal() as journal:
        journal.finish(target("b"), entry("b"))
    said = json.loads((tmp_path / "results.json").read_text())
    assert list(said["results"]) == ["b"]
    again = opened(tmp_path)
    assert again.failures == {}
    assert list(again.results) == ["b"]


def test_damaged_journal(tmp_path):
    manifest = opened(tmp_path)
    with manifest.open_journal() as journal:
        journal.finish(target("a"), entry("a"))
    path = journal.path
    path.write_bytes(path.read_bytes() + b"{\n")
    with pytest.raises(InputError, match=r"line 3 is damaged .*delete it, or pass overwrite"):
        opened(tmp_path)
    path.write_bytes(b"")  # killed before its first line
    assert not opened(tmp_path).results
    opened(tmp_path).save()
    assert not path.exists()


def test_journals_of_other_settings(tmp_path):
    with opened(tmp_path).open_journal() as journal:
        journal.finish(target("a"), entry("a"))
    with pytest.raises(InputError, match=r"other settings \(b\)"):
        opened(tmp_path, b=2)
    assert not opened(tmp_path, b=2, overwrite=True).results
    assert list(opened(tmp_path, overwrite=True).results) == ["a"]
    opened(tmp_path, b=2, overwrite=True).save()
    assert opened(tmp_path, b=2).results == {}


class TestShards:
    def test_each_name_is_in_one(self):
        names = [f"{number:05d}" for number in range(4000)]
        parts = [[n for n in names if Shard(i, 4).holds(n)] for i in range(4)]
        assert sorted(name for part in parts for name in part) == names
        assert all(850 < len(part) < 1150 for part in parts)
        # Stable: jobs of later releases must agree with those of earlier ones.
        assert [Shard.parse(f"{i}/4").holds("00000") for i in range(4)].index(True) == 2

    @pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "", "a/b", "0/0", "1/2/3", "١/٣", " 0/1"])
    def test_refused(self, text):
        with pytest.raises(InputError, match=r"accepted: I/N with 0 ≤ I < N"):
            Shard.parse(text)

    def fill(self, folder: Path, shard: Shard, pixels: int, **options) -> None:
        manifest = opened(folder, shard, **options)
        with manifest.collect_journals(), manifest.open_journal() as journal:
            for name in filter(shard.holds, "abcdefgh"):
                journal.finish(target(name), entry(name, pixels))

    def test_beside_each_other_then_joined(self, tmp_path):
        plain = opened(tmp_path)
        plain.results["a"], plain.results["y"] = entry("a", 1), entry("y", 1)
        plain.save()
        for index in (0, 1):
            self.fill(tmp_path, Shard(index, 2), 2)
        files = sorted(path.name for path in tmp_path.iterdir())
        assert files == ["results.0-of-2.json", "results.1-of-2.json", "results.json"]
        found = dict(read_all(tmp_path)[1])
        assert sorted(found) == sorted("abcdefghy")
        assert found["a"]["ids"]["1"]["pixels"] == 2
        assert set(opened(tmp_path, Shard(0, 2)).results) == {
            name for name in "abcdefghy" if Shard(0, 2).holds(name)
        }
        with pytest.raises(InputError, match=r"2 shards; go on with --shard I/2, or join"):
            opened(tmp_path, Shard(0, 3))
        with opened(tmp_path).collect_journals():
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
        assert dict(opened(tmp_path).results) == found
        self.fill(tmp_path, Shard(2, 3), 3)
        assert opened(tmp_path).results["y"]["ids"]["1"]["pixels"] == 1

    def test_overwritten_with_other_settings(self, tmp_path):
        self.fill(tmp_path, UNSHARDED, 1)
        with pytest.raises(InputError, match="other settings"):
            opened(tmp_path, Shard(0, 2), b=1)
        for index in (0, 1):
            self.fill(tmp_path, Shard(index, 2), 2, overwrite=True, b=1)
        assert not (tmp_path / "results.json").exists()
        assert len(read_all(tmp_path)[1]) == 8

    def test_who_may_run_beside_whom(self, tmp_path):
        with exclusive_run(tmp_path, Shard(0, 2)):
            with exclusive_run(tmp_path, Shard(1, 2)):
                pass
            for other in (Shard(0, 2), Shard(0, 3), UNSHARDED):
                with (
                    pytest.raises(InputError, match=r"another run .*; wait for it"),
                    exclusive_run(tmp_path, other),
                ):
                    pass
        with exclusive_run(tmp_path):
            pass
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("left", "shard"),
        [
            (Shard(0, 2), UNSHARDED),
            (UNSHARDED, Shard(0, 2)),
            (Shard(1, 3), Shard(0, 2)),
            (UNSHARDED, UNSHARDED),
        ],
    )
    def test_workers_of_a_killed_run_are_waited_for(self, tmp_path, left, shard, monkeypatch):
        journal = opened(tmp_path, left).open_journal()
        with monkeypatch.context() as patch:
            patch.setattr("incontext.batch.manifest.PATIENCE", 0)
            with (
                pytest.raises(InputError, match="are still writing"),
                exclusive_run(tmp_path, shard),
            ):
                pass
        threading.Timer(0.2, journal.file.close).start()
        with exclusive_run(tmp_path, shard):
            assert journal.file.closed

    def test_workers_of_other_shards_are_not_waited_for(self, tmp_path):
        with (
            opened(tmp_path, Shard(1, 2)).open_journal() as journal,
            exclusive_run(tmp_path, Shard(0, 2)),
        ):
            assert not journal.file.closed


def test_shards_that_begin_and_end_at_once(tmp_path):
    """One removes the folder of all where it is empty, while another makes its own in it."""
    names, problems = [Shard(index, 4) for index in range(4)], []

    def again(shard: Shard) -> None:
        try:
            for _ in range(150):
                with exclusive_run(tmp_path, shard):
                    pass
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=again, args=[shard]) for shard in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError), exclusive_run(Path("out")):
        pass
    monkeypatch.chdir(tmp_path)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_manifest import entry, opened, target
journal = opened(Path(sys.argv[1])).open_journal()
number = 0
while True:
    name = f"p{number}"
    journal.begin([target(name)])
    Path(sys.argv[1], f".{name}.png.part").write_text("draft")
    Path(sys.argv[1], f".{name}.png.part").rename(Path(sys.argv[1], f"{name}.png"))
    journal.finish(target(name), entry(name))
    if number == 200:
        print("there", flush=True)
    number += 1
"""


@pytest.mark.slow
def test_writer_that_is_killed(tmp_path):
    """All lines but the last are whole; its file was locked; no draft stays."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "there\n"
        (path,) = tmp_path.glob(".run/*/*.jsonl")
        assert is_locked(path)
        os.kill(writer.pid, signal.SIGKILL)
    assert not is_locked(path)
    (tmp_path / ".p99999.png.part").write_text("of a picture that was begun")
    with opened(tmp_path).open_journal() as journal:
        journal.begin([target("p99999")])
    record = read_journal(path)
    known = opened(tmp_path)
    assert len(known.results) == len(record.records) >= 201
    assert all((tmp_path / f"{name}.png").is_file() for name in known.results)
    known.save()
    assert names_of(tmp_path / "results.json") == sorted(record.records)
    assert not list(tmp_path.glob(".*"))
