"""`incontext serve` as a process of its own, asked over HTTP."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from incontext import Example, Predictor
from incontext.checkpoints.location import DEFAULT
from incontext.labels.coco import decode_rle
from tests.web.helpers import labelled
from tests.web.test_page_api import hostile

gradio = pytest.importorskip("gradio", reason="needs gradio (serve extra)")
httpx = pytest.importorskip("httpx", reason="needs httpx (serve extra)")
pytest.importorskip("prometheus_client", reason="needs the serve extra")
pytest.importorskip("fastapi", reason="needs the serve extra")
pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
KEY = "a-key"
ORIGIN = "https://example.org"
# Small, so that what is too large is small as well.
LIMITS = ["--request-mb", "10", "--files", "6", "--megapixels", "1", "--example-megapixels", "1",
          "--ids", "8", "--queue", "2", "--prompts", "2"]  # fmt: skip


class Process:
    """A server that runs until it is stopped; its address once it listens."""

    def __init__(self, *options: object, key: str = "", folder: Path) -> None:
        command = [sys.executable, "-m", "incontext", "serve", "--port", "0", "--threads", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "INCONTEXT_API_KEY": key,
                       "TMPDIR": str(folder)}  # fmt: skip
        self.process = subprocess.Popen(
            [*command, *map(str, options)], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.key = key

    def client(self) -> httpx.Client:
        """A client, as soon as the model is loaded."""
        assert self.process.stdout
        address = self.process.stdout.readline().split()[0]
        headers = {"X-API-Key": self.key} if self.key else {}
        client = httpx.Client(base_url=address, headers=headers, timeout=60)
        until(lambda: client.get("/readyz").status_code == 200)
        return client

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


@contextmanager
def running(*options: object, key: str = "", folder: Path) -> Iterator[httpx.Client]:
    """A client of a server that runs while the block does, and ends well."""
    process = Process(*options, key=key, folder=folder)
    try:
        with closing(process.client()) as client:
            yield client
    finally:
        code = process.end()
    assert code == 0


def until(true) -> None:
    """Wait for something to become true."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never became true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the servers of this file write."""
    folder = tmp_path_factory.mktemp("servers")
    yield folder
    assert not list(folder.glob("incontext-demo.*")), "files outlast the server"


@pytest.fixture(scope="module")
def client(folder):
    """Client of a server with a key, limits and the page."""
    with running(*LIMITS, key=KEY, folder=folder) as client:
        yield client


@pytest.fixture(scope="module")
def brief(tiny_checkpoint, folder):
    """Client of a server without a key, which gives a request one second."""
    options = ["--no-demo", "--checkpoint", tiny_checkpoint, "--seconds", 1, "--cors", ORIGIN]
    with running(*options, folder=folder) as client:
        yield client


@pytest.fixture
def start(folder):
    """Start servers that the test ends by itself."""
    started = []

    def start(*options: object, key: str = "") -> Process:
        started.append(Process(*options, key=key, folder=folder))
        return started[-1]

    yield start
    for process in started:
        process.process.kill()


@pytest.fixture(scope="module")
def predictor():
    torch.set_num_threads(1)
    return Predictor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three pictures and their masks."""
    return labelled(tmp_path_factory.mktemp("scenes"), 3)


def files(**fields: list[Path] | Path) -> list[tuple]:
    """Files of a form."""
    return [
        (field, (path.name, path.read_bytes()))
        for field, paths in fields.items()
        for path in (paths if isinstance(paths, list) else [paths])
    ]


def segment(client, sent: list[tuple], **data: object) -> httpx.Response:
    return client.post("/v1/segment", files=sent, data=data)


def make(client, sent: list[tuple], **data: object) -> httpx.Response:
    return client.post("/v1/prompts", files=sent, data=data)


def error(answer: httpx.Response, status: int) -> str:
    """What a refusal says."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    assert "/tmp" not in said["error"]
    return said["error"]


def metric(client, name: str, **labels: str) -> float:
    """Of /metrics; 0 for one that was never counted."""
    text = client.get("/metrics").text
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    full = re.escape(f"incontext_{name}" + (f"{{{inside}}}" if inside else ""))
    found = re.search(rf"^{full} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def new_prompt(client, scenes):
    """Return the id of a prompt of the first picture; made again, others may have driven it out."""
    pictures, masks = scenes
    sent = files(examples=pictures[0], masks=masks[0])
    return lambda: make(client, sent, names='{"1": "egg"}').json()["id"]


@pytest.fixture(scope="module")
def expected(predictor, scenes):
    """What the library answers for all three."""
    pictures, masks = scenes
    prompt = predictor.prompt([Example(pictures[0], masks[0])], names={1: "egg"})
    return [predictor.predict(path, prompt) for path in pictures]


def test_key(client):
    address = client.base_url
    assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
    basic = base64.b64encode(f"any:{KEY}".encode()).decode()
    for given, status in (
        ({}, 401), ({"X-API-Key": "b"}, 401), ({"X-API-Key": KEY + "é"}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 200), ({"Authorization": f"Basic {basic}"}, 200),
        ({"Authorization": "Basic %%%"}, 401), ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic é"}, 401), ({"Authorization": "Basic"}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:\xfe").decode()}, 401),
        ({"Authorization": "é" * 9}, 401), ({"Authorization": "Bearer é"}, 401),
        ({"Authorization": ""}, 401),
    ):  # fmt: skip
        headers = {name.encode(): value.encode() for name, value in given.items()}
        for path in ("/v1/info", "/readyz", "/metrics", "/demo/", "/openapi.json"):
            answer = httpx.get(f"{address}{path}", headers=headers)
            assert answer.status_code == status, (given, path)
        if status == 401:
            assert "X-API-Key" in answer.json()["error"]
            assert "Basic" in answer.headers["WWW-Authenticate"]


def test_info(client, predictor):
    said = client.get("/v1/info").json()
    assert said["fingerprint"] == predictor.checkpoint
    assert said["checkpoint"] == DEFAULT
    assert said["limits"]["request_bytes"] == 10_000_000
    assert client.get("/readyz").json() == {"status": "ready"}


def test_labels_are_those_of_the_library(client, new_prompt, scenes, expected):
    pictures, _ = scenes
    one = segment(client, files(images=pictures[1]), prompt=new_prompt(), answer="labels")
    assert one.headers["content-type"] == "image/png"
    memory = io.BytesIO()
    expected[1].label_image().save(memory, "PNG")
    assert one.content == memory.getvalue()
    several = segment(client, files(images=pictures), prompt=new_prompt(), answer="labels")
    assert several.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(several.content)) as archive:
        assert archive.namelist() == [
            "scene0.png", "scene1.png", "scene2.png", "results.json"
        ]  # fmt: skip
        for number, result in enumerate(expected):
            assert np.array_equal(png(archive.read(f"scene{number}.png")), result.labels)
        entries = json.loads(archive.read("results.json"))["pictures"]
    assert [e["labels"] for e in entries] == ["scene0.png", "scene1.png", "scene2.png"]


def test_json_and_coco_are_those_of_the_library(client, new_prompt, scenes, expected):
    pictures, _ = scenes
    entries = segment(client, files(images=pictures), prompt=new_prompt()).json()["pictures"]
    sent = files(images=pictures)
    coco = segment(client, sent, prompt=new_prompt(), answer="coco").json()
    assert coco["categories"] == [{"id": 1, "name": "egg"}]
    assert coco["failed"] == []
    assert [one["file_name"] for one in coco["images"]] == [path.name for path in pictures]
    for number, (entry, result) in enumerate(zip(entries, expected, strict=True)):
        mask, size = result.mask(1), result.image.size
        assert entry["name"] == f"scene{number}.png"
        assert entry["size"] == list(size)
        found = entry["ids"]["1"]
        assert found["name"] == "egg"
        assert found["pixels"] == mask.sum()
        assert found["presence"] == pytest.approx(result.presence[1], abs=1e-4)
        assert found["quality"] == pytest.approx(result.quality[1], abs=1e-4)
        assert found["confidence"] == pytest.approx(result.confidence[mask].mean(), abs=1e-4)
        assert np.array_equal(decode_rle(found["rle"], size), mask)
        assert np.array_equal(decode_rle(coco["annotations"][number]["segmentation"], size), mask)


def test_threshold_of_presence(client, new_prompt, scenes):
    pictures, _ = scenes
    for presence, shows in ((0.5, True), (1, False)):
        sent = {"prompt": new_prompt(), "min_presence": presence}
        [entry] = segment(client, files(images=pictures[1]), **sent).json()["pictures"]
        assert (entry["ids"]["1"]["pixels"] > 0) == shows
    for wrong in ("1.5", "-1", "much"):
        answer = client.post(
            "/v1/segment", files=files(images=pictures[1]),
            data={"prompt": new_prompt(), "min_presence": wrong},
        )  # fmt: skip
        assert "min_presence" in error(answer, 422)
    low = segment(client, files(images=pictures[1]), prompt=new_prompt(), min_presence=0.3)
    assert "min_presence is 0.3; accepted with this checkpoint" in error(low, 422)


def test_examples_for_once_tiles_and_color_masks(client, predictor, scenes, tmp_path):
    pictures, masks = scenes
    red, colors = tmp_path / "red.png", np.zeros((200, 480, 3), np.uint8)
    colors[np.asarray(Image.open(masks[0])) == 1] = (255, 0, 0)
    Image.fromarray(colors).save(red)
    example = Example(pictures[0], red, colors={7: (255, 0, 0)})
    prompt = predictor.prompt([example], crop=True, kind="instance")
    result = predictor.predict(pictures[1], prompt, tile=160, skip_empty=True)
    before = client.get("/metrics").text.count("incontext_prompts ")
    answer = segment(
        client, files(images=pictures[1], examples=pictures[0], masks=red),
        colors='{"7": [255, 0, 0]}', crop="true", kind="instance", tile=160,
        skip_empty="true", answer="labels",
    )  # fmt: skip
    assert np.array_equal(png(answer.content), result.labels)
    assert client.get("/metrics").text.count("incontext_prompts ") == before


def test_prompts_come_and_go(client, predictor, scenes, expected, tmp_path):
    pictures, masks = scenes
    sent = files(examples=pictures[0], masks=masks[0])
    made = make(client, sent, names='{"1": "egg"}')
    assert made.status_code == 201
    said = made.json()
    assert (said["ids"], said["names"], said["examples"]) == ([1], {"1": "egg"}, 1)
    assert said["kind"] == "semantic"
    assert len(said["colors"]["1"]) == 3
    assert make(client, sent, names='{"1": "egg"}').json() == said
    assert make(client, sent).json()["id"] != said["id"]
    assert client.get(f"/v1/prompts/{said['id']}").json() == said
    # Down, and up again: the same prompt everywhere.
    path = tmp_path / "egg.safetensors"
    path.write_bytes(client.get(f"/v1/prompts/{said['id']}/file").content)
    result = predictor.predict(pictures[1], predictor.load_prompt(path))
    assert np.array_equal(result.labels, expected[1].labels)
    up = make(client, files(file=path))
    assert up.status_code == 201, up.text
    other = up.json()
    assert other["id"] != said["id"]
    assert other["names"] == {"1": "egg"}
    assert make(client, files(file=path)).json() == other
    answer = segment(client, files(images=pictures[1]), prompt=other["id"], answer="labels")
    assert np.array_equal(png(answer.content), expected[1].labels)
    # Two are held here: the one that was used last, and the newest.
    assert client.get(f"/v1/prompts/{other['id']}").status_code == 200
    assert make(client, sent, names='{"1": "third"}').status_code == 201
    assert metric(client, "prompts") == 2
    assert metric(client, "prompt_bytes") > 1000
    assert "dropped for newer" in error(client.get(f"/v1/prompts/{said['id']}"), 404)
    assert client.delete(f"/v1/prompts/{other['id']}").status_code == 204
    for call in (client.get, client.delete):
        assert "no prompt" in error(call(f"/v1/prompts/{other['id']}"), 404)
    assert "no prompt" in error(client.get(f"/v1/prompts/{other['id']}/file"), 404)
    gone = segment(client, files(images=pictures[1]), prompt=other["id"])
    assert "no prompt" in error(gone, 404)


def test_names_are_the_clients(client, new_prompt, scenes):
    """Answers call pictures as they were sent; files in a zip have safe names, each its own."""
    data = scenes[0][1].read_bytes()
    names = ["a+b.png", "x [1].png", "x #1.png", "photo (1).png", f"IMG_{'0' * 80}.rf.png"]
    sent = [("images", (name, data)) for name in names]
    document = segment(client, sent, prompt=new_prompt(), answer="coco").json()
    assert [image["file_name"] for image in document["images"]] == names
    entries = segment(client, sent, prompt=new_prompt()).json()["pictures"]
    assert [entry["name"] for entry in entries] == names
    answer = segment(client, sent, prompt=new_prompt(), answer="labels")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        entries = json.loads(archive.read("results.json"))["pictures"]
        assert [entry["name"] for entry in entries] == names
        assert sorted(archive.namelist()) == sorted(
            ["results.json", *(e["labels"] for e in entries)]
        )
    assert entries[4]["labels"].startswith("IMG_000")


@pytest.mark.parametrize("kind", ["truncated", "bomb", "svg", "html", "large", "empty"])
def test_a_bad_picture_does_not_stop_the_rest(client, new_prompt, scenes, tmp_path, kind):
    pictures, masks = scenes
    path = hostile(tmp_path, kind)
    if kind == "svg":
        path = path.rename(tmp_path / "drawing.png")
    elif kind == "large":
        Image.new("L", (1001, 1000)).save(path)
    elif kind == "empty":
        path.write_bytes(b"")
    text = {"truncated": "damaged", "bomb": "more than 1 megapixels",
            "large": "more than 1 megapixels"}.get(kind, "not a picture")  # fmt: skip
    # Twice the same name, and one that would lead elsewhere.
    sent = [*files(images=[pictures[1], path]),
            ("images", ("../../../tmp/scene1.jpg", pictures[1].read_bytes()))]  # fmt: skip
    entries = segment(client, sent, prompt=new_prompt()).json()["pictures"]
    assert [e["name"] for e in entries] == ["scene1.png", path.name, "scene1.jpg"]
    assert entries[0]["ids"] == entries[2]["ids"]
    assert set(entries[1]) == {"name", "error"}
    assert entries[1]["error"].startswith(path.name)
    assert text in entries[1]["error"]
    coco = segment(client, sent, prompt=new_prompt(), answer="coco").json()
    assert [one["name"] for one in coco["failed"]] == [path.name]
    # Nothing is left to answer where it is the only one, the example, or the mask.
    alone = segment(client, files(images=path), prompt=new_prompt(), answer="labels")
    assert text in error(alone, 422)
    for given in ({"examples": path, "masks": masks[0]}, {"examples": pictures[0], "masks": path}):
        assert text in error(make(client, files(**given)), 422)


def test_bad_options_are_named(client, new_prompt, scenes, tmp_path):
    pictures, masks = scenes
    image, example = files(images=pictures[0]), files(examples=pictures[0], masks=masks[0])
    known = new_prompt()
    for sent, data, text in (
        (image, {"prompt": known, "tile": "nan"}, "tile: "),
        (image, {"prompt": known, "tile": "-3"}, "tile -3; accepted: 16"),
        (image, {"prompt": known, "tile": "0"}, "tile 0; accepted: 16"),
        (image, {"prompt": known, "skip_empty": "true"}, "skip_empty without tile"),
        (image, {"prompt": known, "answer": "xml"}, "accepted: json, coco, labels"),
        (image, {"prompt": known, "anwser": "coco"}, "field 'anwser'; accepted: answer, colors"),
        (image, {"prompt": known, "kind": "instance"}, "kind beside a prompt"),
        (image, {}, "name a prompt, or send examples"),
        (image + example, {"prompt": known}, "name a prompt, or send examples"),
        (example, {"prompt": known}, "images: "),
        (image + example[:1], {}, "1 examples and 0 masks"),
        (image + example, {"threshold": "nan"}, "threshold=nan"),
        (image + example, {"threshold": "inf"}, "threshold=inf"),
        (image + example, {"kind": "panoptic"}, "accepted: instance, semantic"),
        (image + example, {"names": "[1"}, "names: "),
        (image + example, {"names": '{"9": "x"}'}, "a name for id 9"),
        (image + example, {"names": "[" * 10_000}, "names: "),
        (image + example, {"colors": '{"1": [0, 0, 300]}'}, "scene0.png: "),
        (image + example, {"ignore": "x"}, "ignore 'x'"),
        (image + example, {"nearest": "0"}, "nearest"),
        (image + example, {"unlabelled": "maybe"}, "unlabelled="),
    ):
        assert text in error(segment(client, sent, **data), 422), data
    assert "/v1/segment" in client.get("/openapi.json").json()["paths"]
    assert "no route" in error(client.get("/v1/../etc/passwd"), 404)
    assert "no prompt" in error(client.get("/v1/prompts/..%00x"), 404)
    error(client.get("/v1/segment"), 405)
    error(client.post("/v1/segment", content=b"{}"), 422)
    broken = {"Content-Type": "multipart/form-data"}
    error(client.post("/v1/segment", content=b"--x", headers=broken), 400)


def test_prompt_files_that_lie(client, predictor, scenes, tmp_path, tiny_checkpoint):
    pictures, masks = scenes
    path = predictor.prompt([Example(pictures[0], masks[0])], half=True).save(
        tmp_path / "a.safetensors"
    )
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["incontext.prompt"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    key = next(name for name in tensors if "known" in name)
    lies = {
        "sizes": ({**about, "passes": [{**about["passes"][0], "size": [9**9]}]}, tensors),
        "shape": (about, {**tensors, key: torch.zeros(3)}),
        "names": ({**about, "names": {"1": [[]]}}, tensors),
        "color": ({**about, "colors": {"1": [1]}}, tensors),
        "empty": ({**about, "passes": []}, tensors),
        "kind": ({**about, "examples": "many"}, tensors),
    }
    for name, (said, held) in lies.items():
        save_file(held, path, {"incontext.prompt": json.dumps(said)})
        answer = make(client, files(file=path.rename(tmp_path / f"{name}.safetensors")))
        assert "not a prompt file" in error(answer, 422), name
    other = Predictor.from_pretrained(tiny_checkpoint, device="cpu")
    path = other.prompt([Example(pictures[0], masks[0])]).save(tmp_path / "b.safetensors")
    said = error(make(client, files(file=path)), 422)
    assert said.startswith("b.safetensors: the prompt was made with another checkpoint")
    text = tmp_path / "c.safetensors"
    text.write_text("<html>")
    assert "not a prompt file" in error(make(client, files(file=text)), 422)
    assert "names beside a prompt" in error(make(client, files(file=text), names='{"1": "x"}'), 422)


def test_too_much(client, new_prompt, scenes, tmp_path):
    pictures, _ = scenes
    before = {r: metric(client, "rejected_total", reason=r) for r in ("bytes", "files", "pixels")}
    large = tmp_path / "large.png"
    large.write_bytes(bytes(11_000_000))
    request = client.build_request("POST", "/v1/segment", files=files(images=large))
    body = request.read()
    kind = {"Content-Type": request.headers["Content-Type"]}
    assert "10 MB" in error(client.send(request), 413)
    # Chunked: nothing is said of its length.
    parts = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
    answer = client.post("/v1/segment", content=parts, headers=kind)
    assert "10 MB" in error(answer, 413)
    many = files(images=[pictures[0]] * 7)
    assert "7 files; accepted: 6" in error(segment(client, many, prompt=new_prompt()), 413)
    wide = tmp_path / "wide.png"
    Image.new("L", (900, 600), 1).save(wide)
    sent = files(examples=[wide, wide], masks=[wide, wide])
    assert "more than 1 megapixels together" in error(make(client, sent), 413)
    Image.fromarray(np.arange(1, 10, dtype=np.uint8)[None].repeat(9, 0)).save(wide)
    sent = files(examples=wide, masks=wide)
    assert "9 ids in one prompt; accepted here: 8" in error(make(client, sent), 413)
    after = {r: metric(client, "rejected_total", reason=r) for r in before}
    assert after == {"bytes": before["bytes"] + 2, "files": before["files"] + 1,
                     "pixels": before["pixels"] + 1}  # fmt: skip


def test_tiles_are_bounded(client, new_prompt, scenes, tmp_path):
    """Nobody stops a picture before all of its tiles are painted."""
    large = tmp_path / "large.png"
    Image.new("L", (1000, 1000), 1).save(large)
    before = metric(client, "rejected_total", reason="paintings")
    sent = files(images=[scenes[0][0], large])
    said = error(segment(client, sent, prompt=new_prompt(), tile=16), 422)
    assert said.startswith("large.png: 1000 × 1000 pixels are 6889 tiles of 16, each painted 1 tim")
    assert "accepted: 4096 of a picture" in said
    assert metric(client, "rejected_total", reason="paintings") == before + 1


def test_downloads_are_bounded(client, tmp_path):
    """Files that slow clients read do not pile up."""
    picture, masks = tmp_path / "a.png", [tmp_path / f"{n}.png" for n in range(3)]
    Image.new("L", (64, 64), 9).save(picture)
    for path in masks:
        Image.fromarray(np.arange(64, dtype=np.uint8)[None].repeat(64, 0) // 8).save(path)
    sent = files(examples=[picture] * 3, masks=masks)
    path = f"/v1/prompts/{make(client, sent).json()['id']}/file"
    ask = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n".encode()
    slow = []
    for _ in range(4):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((client.base_url.host, client.base_url.port))
        one.sendall(ask)
        assert one.recv(12) == b"HTTP/1.1 200"
        slow.append(one)
    full = client.get(path)
    assert "4 prompts are being downloaded" in error(full, 503)
    assert int(full.headers["Retry-After"]) > 0
    for one in slow:
        one.close()
    until(lambda: client.get(path).status_code == 200)


class Raw:
    """A request over a socket of our own, which can be left."""

    def __init__(self, client, content: bytes, headers: dict[str, str]) -> None:
        url = client.base_url
        lines = {"Host": "x", "X-API-Key": KEY, "Content-Length": str(len(content)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.socket = socket.create_connection((url.host, url.port))
        self.socket.settimeout(120)
        self.socket.sendall(f"POST /v1/segment HTTP/1.1\r\n{head}\r\n".encode() + content)

    def status(self) -> int:
        return int(self.socket.recv(4000).split()[1])


def long(client, new_prompt, scenes, count: int = 6, **data) -> Raw:
    """A request that takes long: some pictures in tiles."""
    request = client.build_request(
        "POST", "/v1/segment", files=files(images=(scenes[0] * 2)[:count]),
        data={"prompt": new_prompt(), "tile": 160, **data},
    )  # fmt: skip
    return Raw(client, request.read(), {"Content-Type": request.headers["Content-Type"]})


def test_busy(client, new_prompt, scenes):
    done = metric(client, "pictures_total", result="done")
    left = {"method": "POST", "route": "/v1/segment", "status": "499"}
    before = metric(client, "requests_total", **left)
    first = long(client, new_prompt, scenes)
    until(lambda: metric(client, "computing") == 1)
    second = long(client, lambda: "0" * 32, scenes)  # refused before it waits
    assert second.status() == 404
    image = files(images=scenes[0][0], examples=scenes[0][0], masks=scenes[1][0])
    waiting = []
    other = threading.Thread(target=lambda: waiting.append(segment(client, image)))
    other.start()
    until(lambda: metric(client, "queue_depth") == 1)
    assert client.get("/healthz").status_code == 200
    assert metric(client, "computing") == 1
    full = segment(client, image)
    assert "2 jobs are waiting already" in error(full, 503)
    assert int(full.headers["Retry-After"]) > 0
    first.socket.close()  # goes away: what it began is not finished, the next one's turn comes
    other.join(60)
    assert waiting[0].status_code == 200
    until(lambda: metric(client, "computing") == 0)
    assert done < metric(client, "pictures_total", result="done") < done + 7
    assert metric(client, "requests_total", **left) == before + 1


def test_what_a_request_says_of_its_length_is_not_believed(client):
    # More than it says: the rest is another request, and none that can be read.
    raw = Raw(client, b"x" * 4000, {"Content-Length": "10"})
    assert raw.status() in (400, 422)
    raw = Raw(client, b"", {"Content-Length": str(10**15)})
    assert raw.status() == 413


def test_metrics_count(client):
    labels = {"method": "GET", "route": "/healthz", "status": "200"}
    before = metric(client, "requests_total", **labels)
    unknown = metric(client, "requests_total", method="GET", route="other", status="404")
    client.get("/healthz")
    client.get("/somewhere/else")
    client.get("/v1/prompts/nobody")  # counted under its route, whatever the id
    client.get("/v1/prompts/nobody/")  # redirected, and not counted under what the client wrote
    assert metric(client, "requests_total", **labels) == before + 1
    assert metric(client, "requests_total", method="GET", route="other", status="404") > unknown
    assert metric(client, "request_seconds_count", route="/healthz") >= before + 1
    text = client.get("/metrics").text
    assert 'route="/v1/prompts/{id}"' in text
    assert "somewhere" not in text
    assert "nobody" not in text
    assert "process_resident_memory_bytes" in text


def test_routes_are_described(client):
    document = client.get("/openapi.json").json()
    routes = {
        f"{method} {path}": said for path, methods in document["paths"].items()
        for method, said in methods.items()
    }  # fmt: skip
    assert set(routes) == {
        "get /healthz", "get /readyz", "get /metrics", "get /v1/info", "post /v1/segment",
        "post /v1/prompts", "get /v1/prompts/{id}", "delete /v1/prompts/{id}",
        "get /v1/prompts/{id}/file",
    }  # fmt: skip
    assert all(said["summary"] for said in routes.values())
    keys = {route for route, said in routes.items() if said.get("security")}
    assert keys == {route for route in routes if "/v1/" in route}
    table = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
    for route in routes:
        method, _, path = route.partition(" ")
        assert f"| `{method.upper()} {path}`" in table


def test_the_page_is_there_and_shares_the_model(client, scenes):
    gradio_client = pytest.importorskip("gradio_client")
    answer = client.get("/", follow_redirects=True)
    assert str(answer.url).endswith("/demo/")
    assert "incontext: show a few masks" in answer.text
    page = gradio_client.Client(
        f"{client.base_url}/demo/", headers={"X-API-Key": KEY}, verbose=False
    )
    pictures, masks = ([gradio_client.handle_file(str(p)) for p in paths] for paths in scenes)
    _, said = page.predict(
        examples=pictures[:1], masks=masks[:1], pictures=pictures[1:2], api_name="/segment"
    )
    assert said["failed"] == []
    assert list(said["pictures"]) == ["scene1"]


def test_time_is_limited(brief, scenes):
    pictures, masks = scenes
    before = metric(brief, "rejected_total", reason="seconds")
    sent = files(images=pictures * 20, examples=pictures[0], masks=masks[0])
    assert "not done within 1 s" in error(segment(brief, sent, tile=64), 504)
    until(lambda: metric(brief, "computing") == 0)
    assert metric(brief, "rejected_total", reason="seconds") == before + 1
    form = {"Content-Length": "1000", "Content-Type": "multipart/form-data; boundary=x"}
    assert Raw(brief, b"--x\r\n", form).status() == 408
    assert brief.get("/demo/").status_code == 404
    assert brief.get("/").status_code == 404


def test_pages_elsewhere(client, brief):
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "DELETE",
             "Access-Control-Request-Headers": "x-api-key"}  # fmt: skip
    allowed = brief.options("/v1/prompts/x", headers=asked)
    assert allowed.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert brief.get("/v1/info", headers=asked).headers["Access-Control-Allow-Origin"] == ORIGIN
    for other in (
        brief.get("/v1/info", headers={"Origin": "https://example.com"}),
        client.get("/v1/info", headers=asked),
    ):
        assert other.status_code == 200
        assert "Access-Control-Allow-Origin" not in other.headers


def test_the_page_of_documentation_runs(client, scenes, tmp_path):
    text = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, path in (
        ("photo.jpg", scenes[0][0]),
        ("a.jpg", scenes[0][1]),
        ("b.jpg", scenes[0][2]),
    ):
        Image.open(path).save(tmp_path / name, quality=95)
    shutil.copy(scenes[1][0], tmp_path / "mask.png")
    environment = {**os.environ, "INCONTEXT_API_KEY": KEY}
    address = str(client.base_url).rstrip("/")

    def run(*command: str) -> str:
        done = subprocess.run(
            [part.replace("http://127.0.0.1:8000", address) for part in command], cwd=tmp_path,
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run(sys.executable, "-c", program).splitlines()
    assert [line.split()[0] for line in said] == ["a.jpg", "b.jpg"]
    assert Image.open(tmp_path / "a.png").mode == "P"
    if shutil.which("curl"):
        [lines] = re.findall(r"```sh\n(curl.*?)```", text, re.DOTALL)
        run("bash", "-ec", lines)
        assert len(zipfile.ZipFile(tmp_path / "labels.zip").namelist()) == 3
        assert json.loads((tmp_path / "coco.json").read_text())["failed"] == []


def test_what_cannot_begin_says_so(client, incontext, monkeypatch):
    monkeypatch.delenv("INCONTEXT_API_KEY", raising=False)
    port = client.base_url.port
    answer = incontext("serve", "--host", "0.0.0.0", "--port", port)
    assert answer.code == 2
    warned, said = answer.err.splitlines()
    assert warned.startswith("Warning: no API key")
    assert said == f"Error: port {port} is in use; choose another --port"
    with monkeypatch.context() as environment:  # a variable instead of the option
        environment.setenv("INCONTEXT_SERVE_PORT", str(port))
        assert f"port {port} is in use" in incontext("serve", "--api-key", "x").err
    answer = incontext("serve", "--host", "192.0.2.1", "--api-key", "x")
    assert answer.code == 2
    assert answer.err.startswith("Error: cannot listen at 192.0.2.1:8000")
    assert incontext("serve", "--api-key", " ").err.startswith("Error: an API key is empty")
    # What a server changes in its process, that it may be changed back.
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    for place, name in (
        (gradio.ImageEditor, "preprocess"), (gradio.ImageEditor, "accept_blobs"),
        (gradio.processing_utils, "async_ssrf_protected_download"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    answer = incontext("serve", "--no-demo", "--port", 0, "--device", "nonsense")
    assert answer.code == 2
    assert answer.err.startswith("Error: --device 'nonsense'; accepted: auto, cpu")


def test_who_was_there_before_the_end_is_answered(start, scenes):
    server = start(*LIMITS, key=KEY)
    client, process = server.client(), server.process
    sent = files(examples=scenes[0][0], masks=scenes[1][0])
    prompt = make(client, sent).json()["id"]
    first = long(client, lambda: prompt, scenes, 2, answer="coco")
    until(lambda: metric(client, "computing") == 1)
    process.send_signal(signal.SIGTERM)
    until(lambda: client.get("/readyz").status_code == 503)
    refused = segment(client, files(images=scenes[0][0]), prompt="x")
    assert "shutting down" in error(refused, 503)
    assert client.get("/healthz").status_code == 200
    assert first.status() == 200
    assert process.wait(30) == 0


def test_nothing_that_computes_keeps_the_process(start, tiny_checkpoint, scenes, tmp_path):
    """A picture of hours, and the server ends."""
    server = start(
        "--no-demo", "--checkpoint", tiny_checkpoint, "--seconds", 1, "--paintings", 10**9
    )
    client, process = server.client(), server.process
    large = tmp_path / "large.png"
    Image.new("L", (6000, 6000), 1).save(large)
    sent = files(images=large, examples=scenes[0][0], masks=scenes[1][0])
    assert "not done within 1 s" in error(segment(client, sent, tile=16), 504)
    assert metric(client, "computing") == 1
    process.send_signal(signal.SIGTERM)

    def closed() -> bool:
        try:
            return not httpx.get(f"{client.base_url}/healthz")
        except httpx.TransportError:
            return True

    until(closed)
    process.send_signal(signal.SIGTERM)  # it waits for the job no longer
    assert process.wait(30) == 0
