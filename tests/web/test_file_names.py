"""File names: the client's own in answers, safe ones on disk and in zips."""

from io import BytesIO

from fastapi import UploadFile

from incontext.web.file_names import client_name, client_names
from incontext.web.server.uploads import safe_names

ODD = ["a+b.png", "a&b.png", "100%.png", "x [1].png", "photo (1).png", "a_jpg.rf.0123.png", "b"]


def test_names_stay():
    assert client_names(ODD) == ODD
    assert client_names(["deep/x.png", "x.png"]) == ["deep/x.png", "x.png"]


def test_each_is_there_once():
    assert client_names(["x.png", "x.png", "x-2.png", "d/x.png", "d/x.png"]) == [
        "x.png", "x-2.png", "x-2-2.png", "d/x.png", "d/x-2.png"
    ]  # fmt: skip


def test_names_that_lead_elsewhere():
    given = ["../../etc/a.png", "/b.png", "..\\..\\c.png", "C:\\d.png", "", None, "e/"]
    assert client_names(given) == [
        "a.png", "b.png", "c.png", "d.png", "picture", "picture-2", "e/"
    ]  # fmt: skip


def test_files_on_disk_are_safe_and_begin_as_the_names_do():
    names = [*ODD, "../../x", "a&b.png", f"{'long' * 40}.jpeg", "CON?.png"]
    safe = safe_names([UploadFile(BytesIO(), filename=name) for name in names])
    assert len({name.lower() for name in safe}) == len(names)
    assert not any(set(name) & set("/\\?%&[]") or name.startswith(".") for name in safe)
    assert safe[-2].startswith("longlong")
    assert safe[-2].endswith(".jpeg")
    assert max(map(len, safe)) < 90


def test_a_path_without_a_name_of_its_own():
    assert client_name("/tmp/x/a.png") == "a.png"
