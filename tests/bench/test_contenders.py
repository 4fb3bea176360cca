"""Every peer has a program and locks, and every body is what a client would send."""

import base64
import io
import json
import re
import subprocess
import sys
from email.parser import BytesParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.contenders import (
    FASTEST,
    LABEL,
    OPEN_INFERENCE_LABEL,
    PEERS,
    Peer,
    Variant,
    model_environment,
)
from bench.environments import REQUIREMENTS, ROOT, size_bytes, versions
from bench.forms import Form, encode
from bench.processes import cpu_seconds, descendants
from bench.rounds import Contender, rotated
from bench.server import environment
from bench.slices import choose, jpeg_size
from contract.decoding import decode
from contract.preprocessing import PreprocessSpec, preprocess

LOCK_ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==[\w.+!]+( ; [^\\]+)? \\\n"
    r"(    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+",
    re.MULTILINE,
)


def key_of(peer: Peer) -> str:
    return peer.key


def test_every_server_comes_in_both_variants() -> None:
    assert len({peer.key for peer in PEERS}) == len(PEERS)
    names = {variant: {p.name for p in PEERS if p.variant is variant} for variant in Variant}
    assert names[Variant.TENSORFLOW] == names[Variant.LITERT]
    assert len(names[Variant.LITERT]) == 6
    assert names[Variant.LITERT_HALVED] == set(FASTEST)


def test_one_environment_serves_a_peer_however_it_decodes() -> None:
    folders = {peer.key: peer.installed_as for peer in PEERS}
    assert folders["mosec-litert-halved"] == folders["mosec-litert"] == "mosec-litert"
    assert len(set(folders.values())) == 12


def test_a_peer_decodes_whole_pictures_as_pillow_does_or_as_this_project_does(
    slices: list[Path],
) -> None:
    version = ROOT / "model_store" / "brain-tumor" / "1"
    file = next(path for path in slices if jpeg_size(path) == (512, 512))
    script = (
        "import sys, pathlib; from bench.peers.model import Preparation;"
        "sys.stdout.buffer.write(Preparation().prepare(pathlib.Path(sys.argv[1]).read_bytes()))"
    )
    seen = {}
    for variant in Variant:
        variables = environment(ROOT, model_environment(version, variant))
        done = subprocess.run(
            [sys.executable, "-c", script, file], env=variables, capture_output=True, check=True
        )
        seen[variant] = np.frombuffer(done.stdout, np.uint8)
    content = file.read_bytes()
    manifest = json.loads((version / "manifest.json").read_bytes())
    spec = PreprocessSpec.model_validate(manifest["preprocess"]["parameters"])
    whole = preprocess(np.asarray(Image.open(io.BytesIO(content)).convert("L")), spec)
    halved = preprocess(decode(content, spec).upright, spec)
    assert not np.array_equal(whole, halved)
    assert np.array_equal(seen[Variant.TENSORFLOW], whole.ravel())
    assert np.array_equal(seen[Variant.LITERT], whole.ravel())
    assert np.array_equal(seen[Variant.LITERT_HALVED], halved.ravel())


@pytest.mark.parametrize("peer", PEERS, ids=key_of)
def test_a_peer_has_a_program_and_locks(peer: Peer) -> None:
    assert (ROOT / "bench" / "peers" / f"{peer.module}.py").is_file()
    locked = [(REQUIREMENTS / name).read_text(encoding="utf-8") for name in peer.requirements]
    assert any(match["name"] == peer.package for match in LOCK_ENTRY.finditer(locked[1]))
    assert peer.configuration


@pytest.mark.parametrize("lock", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.name)
def test_a_lock_pins_and_hashes_everything_and_names_no_host(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    rest = LOCK_ENTRY.sub("", text)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert re.search(r"https?:|file:|--(extra-)?index|--find-links", text) is None


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (LABEL, '{"label": "glioma"}'),
        (LABEL, '[{"label":"glioma"}]'),
        (OPEN_INFERENCE_LABEL, '{"outputs":[{"name":"label","data":["glioma"]}]}'),
    ],
)
def test_a_pattern_knows_the_right_answer(pattern: str, answer: str) -> None:
    assert re.search(pattern.replace("{label}", "glioma"), answer)
    assert not re.search(pattern.replace("{label}", "notumor"), answer)


def test_multipart_holds_the_file_under_its_field(jpeg: bytes) -> None:
    body = encode(jpeg, Form.MULTIPART, "images")
    message = BytesParser().parsebytes(
        f"Content-Type: {body.media_type}\r\n\r\n".encode() + body.content
    )
    (part,) = [part for part in message.walk() if not part.is_multipart()]
    assert part.get_param("name", header="content-disposition") == "images"
    assert body.content.count(jpeg) == 1


def test_open_inference_holds_the_file_as_base64(jpeg: bytes) -> None:
    (tensor,) = json.loads(encode(jpeg, Form.OPEN_INFERENCE, "image").content)["inputs"]
    assert base64.b64decode(tensor["data"][0]) == jpeg
    assert tensor["name"] == "image"


def test_a_raw_body_is_the_file(jpeg: bytes) -> None:
    body = encode(jpeg, Form.RAW, "")
    assert (body.content, body.media_type) == (jpeg, "image/jpeg")


def test_slices_are_chosen_by_their_own_size_from_every_class(slices: list[Path]) -> None:
    source = choose([("none", Path("nowhere")), ("shipped", slices[0].parents[1])], 4)
    assert source.name == "shipped"
    assert len({path.parent.name for path in source.files}) == 4
    assert {jpeg_size(path) for path in source.files} == {(512, 512)}


def test_a_class_with_few_slices_leaves_its_share_to_the_others(
    slices: list[Path], tmp_path: Path
) -> None:
    content = next(path for path in slices if jpeg_size(path) == (512, 512)).read_bytes()
    for number, folder in enumerate(["many", "few", "few"] + ["many"] * 6):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{number}.jpg").write_bytes(content)
    for count, found in ((4, (2, 2)), (7, (5, 2)), (20, (7, 2))):
        names = [path.parent.name for path in choose([("uneven", tmp_path)], count).files]
        assert (names.count("many"), names.count("few")) == found


def test_what_is_no_jpeg_has_no_size(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    for content in (b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"PNG" * 9):
        file.write_bytes(content)
        assert jpeg_size(file) is None
    with pytest.raises(FileNotFoundError):
        choose([("empty", tmp_path)], 4)


def test_each_contender_takes_each_place_once() -> None:
    items = [Contender(str(n), "/", "", "", [], [], lambda _port: {}, []) for n in range(6)]
    orders = [[one.key for one in rotated(items, number, 3)] for number in range(3)]
    assert orders[0] == ["0", "1", "2", "3", "4", "5"]
    assert {order[0] for order in orders} == {"0", "2", "4"}
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_an_environment_is_weighed_and_read(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / "Some_Server-1.2.dist-info").mkdir(parents=True)
    (packages / "a.py").write_bytes(b"x" * 100)
    (packages / "b.py").hardlink_to(packages / "a.py")
    assert size_bytes(tmp_path) == 100
    assert versions(tmp_path, ["some-server", "other"]) == {"some-server": "1.2"}


def test_processes_are_found_in_proc() -> None:
    assert cpu_seconds(1) >= 0
    assert cpu_seconds(2**22 + 1) == 0
    assert descendants(2**22 + 1) == []
