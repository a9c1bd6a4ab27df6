"""The demo's endpoints through Gradio's own client, and what they make of hostile uploads."""

import io
import json
import struct
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.helpers import clip, iou, labelled, scene, served

gradio_client = pytest.importorskip("gradio_client", reason="needs gradio (demo extra)")
pytest.importorskip("av", reason="needs PyAV (video extra)")
pytestmark = pytest.mark.server


def uploaded(address: str, name: str, content: bytes) -> Path:
    """Where the server puts a file that is uploaded under a name."""
    body = (
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + content + b"\r\n--x--\r\n"  # fmt: skip
    request = urllib.request.Request(
        f"{address}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    with urllib.request.urlopen(request) as answer:
        return Path(json.loads(answer.read())[0]).resolve()


@pytest.fixture(scope="module")
def address():
    with served("--mcp") as address:
        stored = uploaded(address, "a.png", b"x")
        assert stored.is_file()
        yield address
    root = next(p for p in stored.parents if p.name.startswith("incontext-demo."))
    assert not root.exists(), "files outlast the server"


@pytest.fixture(scope="module")
def client(address):
    return gradio_client.Client(address, verbose=False)


def files(paths: list[Path]) -> list[dict]:
    return [gradio_client.handle_file(str(path)) for path in paths]


def segmented(client, pictures, masks, targets, **more):
    return client.predict(
        examples=files(pictures), masks=files(masks), pictures=files(targets), api_name="/segment",
        **more,
    )  # fmt: skip


def test_segment(client, tmp_path):
    pictures, masks = labelled(tmp_path, 3)
    path, said = segmented(client, pictures[:1], masks[:1], pictures[1:], names="egg")
    assert said["failed"] == []
    name, quality = said["pictures"]["scene1"].split()
    assert name == "egg"
    assert float(quality) > 0.8
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert {"coco.json", "masks/scene1.png", "overlays/scene2.jpg"} <= set(names)
        found = np.asarray(Image.open(io.BytesIO(archive.read("masks/scene1.png"))))
        document = json.loads(archive.read("coco.json"))
    assert iou(found == 1, scene(1)[1]) > 0.75
    assert [c["name"] for c in document["categories"]] == ["egg"]


def test_track(client, tmp_path):
    truth = clip(tmp_path / "moving.mp4", 4)
    Image.fromarray(truth[0].astype(np.uint8)).save(tmp_path / "first.png")
    movie, masks, said = client.predict(
        clip=gradio_client.handle_file(str(tmp_path / "moving.mp4")),
        mask=gradio_client.handle_file(str(tmp_path / "first.png")), frame=0, api_name="/track",
    )  # fmt: skip
    assert said["frames"] == 4
    assert Path(movie).stat().st_size > 500
    with zipfile.ZipFile(masks) as archive:
        last = np.asarray(Image.open(io.BytesIO(archive.read("Annotations/moving/00003.png"))))
    assert iou(last == 1, truth[3]) > 0.75


def test_doctor_and_tune(client, tmp_path):
    pictures, masks = labelled(tmp_path, 3)
    page, said = client.predict(pictures=files(pictures), masks=files(masks), api_name="/doctor")
    assert "Example report" in Path(page).read_text()
    assert any("Predicted mIoU" in line for line in said["report"])
    prompt, said = client.predict(
        pictures=files(pictures[:2]), masks=files(masks[:2]), steps=2, api_name="/tune"
    )
    assert isinstance(said["helps"], bool)
    path, said = client.predict(
        prompt=gradio_client.handle_file(prompt), pictures=files(pictures[:1]), api_name="/segment"
    )
    assert said["failed"] == []
    assert Path(path).suffix == ".zip"


def bomb(path: Path, side: int = 30_000) -> Path:
    """A small PNG that says it has 900 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def hostile(folder: Path, kind: str) -> Path:
    """A file that is not what it says."""
    path = folder / f"{kind}.png"
    if kind == "truncated":
        whole = io.BytesIO()
        Image.fromarray(scene(0)[0]).save(whole, "PNG")
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    elif kind == "bomb":
        bomb(path)
    elif kind == "svg":
        path = folder / "drawing.svg"
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    elif kind == "html":
        path.write_text("<html><script>alert(1)</script></html>")
    elif kind == "postscript":
        path.write_text(
            "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
        )
    return path


KINDS = {
    "truncated": "damaged", "bomb": "megapixels", "svg": "not a picture", "html": "not a picture",
    "postscript": "not a picture",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_pictures_get_a_clean_message(client, tmp_path, kind):
    pictures, masks = labelled(tmp_path, 1)
    path = hostile(tmp_path, kind)
    # Among the pictures: the rest goes on.
    _, said = segmented(client, pictures, masks, [path, *pictures])
    assert list(said["pictures"]) == ["scene0"]
    assert len(said["failed"]) == 1
    assert KINDS[kind] in said["failed"][0]
    assert said["failed"][0].startswith(path.name)
    # As the example, the mask, the clip: refused.
    for given, drawn in ((path, masks[0]), (pictures[0], path)):
        with pytest.raises(gradio_client.exceptions.AppError, match=KINDS[kind]) as caught:
            segmented(client, [given], [drawn], pictures)
        assert "/tmp" not in str(caught.value)
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        client.predict(
            clip=files([path])[0], mask=files(masks)[0],
            frame=0, api_name="/track",
        )  # fmt: skip
    assert "went wrong" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_hundred_megabytes_are_refused_and_the_next_visitor_served(address, client, tmp_path):
    pictures, masks = labelled(tmp_path, 1)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(Exception, match="file size"):
        segmented(client, pictures, masks, [large])
    other = gradio_client.Client(address, verbose=False)
    assert segmented(other, pictures, masks, pictures)[1]["failed"] == []


def test_tricks_in_file_names(address, client, tmp_path):
    pictures, masks = labelled(tmp_path, 1)
    tricky = tmp_path / "..%2f..%2fetc;rm -rf $(x) é😀.png"
    tricky.write_bytes(pictures[0].read_bytes())
    path, said = segmented(client, pictures, masks, [tricky])
    assert said["failed"] == []
    with zipfile.ZipFile(path) as archive:
        [image] = json.loads(archive.read("coco.json"))["images"]
        # The client itself drops "$" and a few more before it sends.
        assert image["file_name"].startswith("..%2f..%2fetc;rm -rf ")
        assert image["file_name"].endswith("(x) é😀.png")
        assert all(n.count("/") <= 1 and ".." not in n for n in archive.namelist())
    stored = uploaded(address, "../../../../tmp/evil.png", pictures[0].read_bytes())
    assert "incontext-demo." in str(stored)
    assert not Path("/tmp/evil.png").exists()


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(Path(__file__).resolve()), str(Path(__file__).parents[2] / "README.md")],
)
def test_no_file_of_the_server_can_be_read(address, path):
    for asked in (path, path.replace("/", "%2f"), f"..{path}"):
        quoted = urllib.parse.quote(asked, safe="/%.")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/gradio_api/file={quoted}")
        assert caught.value.code in (403, 404)
    # The client would upload a file of its own: ask as a browser does.
    mine = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    body = json.dumps({"data": [mine, mine, mine, "", "semantic", 0, None, ""]}).encode()
    call = f"{address}/gradio_api/call/segment"
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        event = json.loads(answer.read())["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        said = answer.read().decode()
    assert "event: error" in said
    assert "root:" not in said


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"kind": "panoptic"}, "choices"),
        ({"checkpoint": "elsewhere/model"}, "accepted: incontext-votes"),
        ({"tile": -3}, "tile -3; accepted: 16"),
    ],
)
def test_bad_options_are_named(client, tmp_path, more, text):
    pictures, masks = labelled(tmp_path, 1)
    with pytest.raises(gradio_client.exceptions.AppError, match=text):
        segmented(client, pictures, masks, pictures, **more)


def test_nothing_is_fetched(address):
    elsewhere = [{"path": "https://example.com/a.png", "meta": {"_type": "gradio.FileData"}}]
    body = json.dumps({"data": [elsewhere, [], [], "", "semantic", 0, None, ""]}).encode()
    call = f"{address}/gradio_api/call/segment"
    request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        event = json.loads(answer.read())["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        assert "event: error" in answer.read().decode()


def test_names_like_results_do_not_collide(client, tmp_path):
    pictures, masks = labelled(tmp_path, 1)
    twins = [tmp_path / n for n in ("x.png", "x.confidence.png", "deep/x.png")]
    for twin in twins:
        twin.parent.mkdir(exist_ok=True)
        twin.write_bytes(pictures[0].read_bytes())
    path, _ = segmented(client, pictures, masks, twins)
    with zipfile.ZipFile(path) as archive:
        names = json.loads(archive.read("coco.json"))["images"]
        assert [one["file_name"] for one in names] == ["x.png", "x.confidence.png", "x-2.png"]
        soft = np.asarray(Image.open(io.BytesIO(archive.read("confidence/x.png"))))
    assert len(np.unique(soft)) > 5


def test_pairs_are_needed(client, tmp_path):
    pictures, masks = labelled(tmp_path, 2)
    with pytest.raises(gradio_client.exceptions.AppError, match="2 examples and 1 masks"):
        segmented(client, pictures, masks[:1], pictures)
    with pytest.raises(gradio_client.exceptions.AppError, match=r"scene1\.png has no mask"):
        client.predict(pictures=files(pictures), masks=files(masks[:1]), api_name="/doctor")


def test_tools_for_agents(address):
    with urllib.request.urlopen(f"{address}/gradio_api/mcp/schema") as answer:
        tools = {tool["name"].rpartition("_")[2]: tool for tool in json.loads(answer.read())}
    assert {"segment", "track", "tune", "doctor"} <= set(tools)
    assert "Segment pictures by example" in tools["segment"]["description"]


def test_port_in_use_is_named(address):
    port = address.rpartition(":")[2]
    command = [sys.executable, "-m", "demos", "--port", port]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"port {port} is in use; choose another --port" in ended.stderr
