"""A DICOMweb destination that does what a PACS does on command, and series to send to the service."""

import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
from pydicom import Dataset, dcmread
from pydicom.uid import MRImageStorage, generate_uid

from service.pacs.related import new_boundary, related_body, related_type
from service.settings import Settings
from tests.support.dicom import encoded
from tests.support.service import (
    PATIENCE_SECONDS,
    ROOT,
    FakeRuntimes,
    Service,
    serving,
    settings_for,
    wait_until,
)

AXIAL = ROOT / "tests" / "data" / "dicom" / "axial_t1_defaced_0220.dcm"

SERIES, STUDY, SOP_CLASS, SOP = "0020000E", "0020000D", "00081150", "00081155"
FAILED, STORED, OTHER, REASON = "00081198", "00081199", "0008119A", "00081197"


@dataclass(frozen=True)
class Instance:
    """A DICOM file and what it is."""

    data: bytes
    sop: str
    series: str
    study: str


def series(
    slices: int,
    study: str | None = None,
    path: Path = AXIAL,
    attributes: Mapping[str, Any] | None = None,
) -> list[Instance]:
    """A new series of slices, each with the pixels of a real one."""
    study_uid, series_uid = study or generate_uid(), generate_uid()
    instances = []
    for number in range(slices):
        dataset = dcmread(path)
        dataset.StudyInstanceUID = study_uid
        dataset.SeriesInstanceUID = series_uid
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [0, 0, number]
        for keyword, value in (attributes or {}).items():
            setattr(dataset, keyword, value)
        instances.append(Instance(encoded(dataset), dataset.SOPInstanceUID, series_uid, study_uid))
    return instances


def form(files: Sequence[bytes]) -> tuple[str, bytes]:
    """A multipart/related Content-Type and body."""
    boundary = new_boundary()
    return related_type(boundary), b"".join(related_body(boundary, files))


def stow(
    client: httpx.Client,
    files: Sequence[bytes],
    study: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Sends DICOM files as a PACS does."""
    content_type, body = form(files)
    path = "/dicom-web/studies" + (f"/{study}" if study else "")
    return client.post(
        path, content=body, headers={"Content-Type": content_type, **(headers or {})}
    )


def values(response: httpx.Response, sequence: str, tag: str) -> list[Any]:
    """Of an element in each item of a sequence of a DICOM JSON answer."""
    items = response.json().get(sequence, {"Value": []})["Value"]
    return [item[tag]["Value"][0] for item in items]


@dataclass
class Pacs:
    """A destination.

    Attributes:
        url: its DICOMweb service.
        status: what it answers; 200 stores.
        fails: a request with these objects gets 503 instead.
        reasons: SOP instance UID to the failure reason it refuses it with; with 202, or 409 if all are.
        gate: cleared, a request waits until it is set again.
        requests: for each one, its headers and the SOP instance UIDs in it.
        objects: what it holds, by SOP instance UID.
        stored: SOP instance UIDs in the order in which they came, again and again.
    """

    url: str = ""
    status: int = 200
    fails: Callable[[Sequence[Dataset]], bool] = lambda _received: False
    reasons: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[dict[str, str], list[str]]] = field(default_factory=list)
    objects: dict[str, Dataset] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)

    def of_kind(self, modality: str) -> list[Dataset]:
        """The objects of a modality."""
        return [item for item in self.objects.values() if item.Modality == modality]

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Answers one request."""
        boundary = headers["content-type"].split("boundary=")[1].encode()
        parts = body.split(b"--" + boundary)[1:-1]
        received = [dcmread(io.BytesIO(part.partition(b"\r\n\r\n")[2][:-2])) for part in parts]
        self.requests.append((headers, [item.SOPInstanceUID for item in received]))
        self.gate.wait()
        if self.status != 200:
            return self.status, b""
        if self.fails(received):
            return 503, b""
        refused = [item for item in received if item.SOPInstanceUID in self.reasons]
        for item in received:
            if item not in refused:
                self.objects[item.SOPInstanceUID] = item
                self.stored.append(item.SOPInstanceUID)
        answer: dict[str, Any] = {"00081190": {"vr": "UR"}}
        if refused:
            failed = [
                {
                    SOP_CLASS: {"vr": "UI", "Value": [item.SOPClassUID]},
                    SOP: {"vr": "UI", "Value": [item.SOPInstanceUID]},
                    REASON: {"vr": "US", "Value": [self.reasons[item.SOPInstanceUID]]},
                }
                for item in refused
            ]
            answer[FAILED] = {"vr": "SQ", "Value": failed}
        status = 200 if not refused else 409 if len(refused) == len(received) else 202
        return status, json.dumps(answer).encode()


@contextmanager
def pacs() -> Iterator[Pacs]:
    """A destination over real HTTP on a free port."""
    state = Pacs()
    state.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content = state.take({**headers, "path": self.path}, body)
            self.send_response(status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Tests look at what came, not at a log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


def pacs_settings(store: Path, folder: Path, url: str, **changes: Any) -> Settings:
    """Settings of a service beside a PACS, quick enough for tests."""
    values: dict[str, Any] = {
        "dicomweb_url": url,
        "spool": folder / "spool",
        "series_quiet_ms": 100,
        "dicomweb_retry_ms": 50,
        "dicomweb_retry_max_ms": 200,
    }
    return settings_for(store, **{**values, **changes})


def serve(
    store: Path, folder: Path, destination: Pacs, **changes: Any
) -> AbstractContextManager[Service]:
    """A service beside a destination, whose runtime does no work."""
    return serving(pacs_settings(store, folder, destination.url, **changes), FakeRuntimes())


def send(service: Service, instances: Sequence[Instance]) -> None:
    """Sends instances, all of which are taken."""
    assert stow(service.client, [item.data for item in instances]).status_code == 200


def reported(report: Dataset) -> set[str]:
    """SOP instance UIDs of the images that a structured report lists in its evidence."""
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    return {
        image.ReferencedSOPInstanceUID
        for one in study.ReferencedSeriesSequence
        for image in one.ReferencedSOPSequence
        if image.ReferencedSOPClassUID == MRImageStorage
    }


def sops(instances: Sequence[Instance]) -> set[str]:
    """Their SOP instance UIDs."""
    return {item.sop for item in instances}


def report(service: Service) -> dict[str, Any]:
    """What /health says of the way from and to the PACS, once the spool's disk says it."""
    end = monotonic() + PATIENCE_SECONDS
    while True:
        content: dict[str, Any] = service.client.get("/health").json()["pacs"]
        if content["spool"] == "ok" or monotonic() > end:
            return content
        # As a busy machine may have it.
        sleep(0.1)


def one_set_aside(service: Service) -> dict[str, Any]:
    """What ``GET /deliveries`` says of the one series that cannot be analysed, once there is one."""
    wait_until(lambda: report(service)["series_dead"] == 1)
    (aside,) = service.client.get("/deliveries").json()["set_aside"]
    return dict(aside)


def settled(service: Service) -> bool:
    """Whether nothing waits, neither to be analysed nor to be delivered."""
    now = report(service)
    return not (now["series_waiting"] or now["objects_waiting"])
