"""Results to a destination that refuses, is away, or has them already; nothing is lost and none is sent
for ever."""

import base64
import errno
import json
import os
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from service.dicom.results import MadeObject
from service.errors import SpoolFull
from service.pacs.delivery import MAX_STRIKES
from service.pacs.destination import Destination, judge
from service.pacs.inbox import Inbox
from service.pacs.ledger import Ledger
from service.pacs.outbox import Outbox
from service.pacs.schemas import Deliveries, Retried
from service.pacs.segments import SUFFIX, Segments
from service.pacs.series import Instance, Waiting
from service.pacs.waits import JITTER, backoff
from service.routes import deliveries
from tests.support.pacs import Pacs, pacs_settings, report, series, settled, stow
from tests.support.service import FakeRuntimes, Service, serving, wait_until

VISIT = "f034d653fe9943c1cf229188d3e5507c"


def send(service: Service, slices: int = 1) -> str:
    """A new series; its study."""
    sent = series(slices)
    files = [item.data for item in sent]
    assert stow(service.client, files, headers={"X-Request-ID": VISIT}).status_code == 200
    return sent[0].study


def serve(store: Path, folder: Path, destination: Pacs, **changes: Any) -> Any:
    # What the fake runtime answers is like nothing that the model was trained on.
    settings = pacs_settings(store, folder, destination.url, ood_threshold=1e9, **changes)
    return serving(settings, FakeRuntimes())


@contextmanager
def outbox(folder: Path) -> Iterator[Outbox]:
    """An empty one, without a service."""
    with closing(Ledger(folder)) as ledger:
        segments = Segments(folder / "segments", 10**9)
        yield Outbox(ledger, segments, Inbox(ledger, segments, 0, 0), 3600)


def test_objects_of_a_result_travel_together(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    with serve(model_store, tmp_path, destination) as service:
        study = send(service, 3)
        wait_until(lambda: settled(service))
        assert service.metric("brain_outbox_delivered_total", kind="SR") == 1
        assert service.metric("brain_outbox_retries_total") == 0
    ((headers, sops),) = destination.requests
    assert sops == list(destination.objects)
    assert {"SR", "OT"} <= {item.Modality for item in destination.objects.values()}
    assert headers["path"] == "/dicom-web/studies"
    assert headers["accept"] == "application/dicom+json"
    assert "authorization" not in headers
    assert {item.StudyInstanceUID for item in destination.objects.values()} == {study}


@pytest.mark.parametrize(
    ("changes", "header"),
    [
        ({"dicomweb_token": SecretStr("abc")}, "Bearer abc"),
        (
            {"dicomweb_user": "brain", "dicomweb_password": SecretStr("geheim")},
            f"Basic {base64.b64encode(b'brain:geheim').decode()}",
        ),
    ],
    ids=["token", "password"],
)
def test_credentials_are_sent(
    model_store: Path, tmp_path: Path, destination: Pacs, changes: Any, header: str
) -> None:
    with serve(model_store, tmp_path, destination, **changes) as service:
        send(service)
        wait_until(lambda: destination.requests)
    assert destination.requests[0][0]["authorization"] == header


@pytest.mark.parametrize("status", [500, 502, 503, 401, 403, 404, 429, 302])
def test_a_destination_that_cannot_take_results_gets_them_later(
    model_store: Path, tmp_path: Path, destination: Pacs, status: int
) -> None:
    destination.status = status
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: len(destination.requests) >= 3)
        now = report(service)
        waiting = len(destination.requests[0][1])
        assert now["destination"] == "unreachable"
        assert (now["objects_waiting"], now["objects_dead"]) == (waiting, 0)
        assert now["oldest_seconds"] > 0
        assert service.client.get("/health/ready").status_code == 200
        assert f"brain_outbox_objects {waiting}.0" in service.client.get("/metrics").text
        destination.status = 200
        wait_until(lambda: settled(service))
        wait_until(lambda: report(service)["destination"] == "ok")
        assert service.metric("brain_outbox_retries_total") >= 2
    assert len(destination.objects) == len(destination.stored) == waiting


@pytest.mark.parametrize(
    ("after", "with_another"), [("3600", True), ("3600", False), ("999999", False)]
)
def test_retry_after_is_heeded_for_an_hour(
    model_store: Path, tmp_path: Path, destination: Pacs, after: str, with_another: bool
) -> None:
    destination.status = 503
    destination.headers = {"Retry-After": after}
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: report(service)["destination"] == "unreachable")
        wait_seconds = service.state.gateway.outbox.wait_seconds()
        assert 3500 < wait_seconds <= 3600
        destination.status = 200
        if with_another:
            send(service)
            wait_until(lambda: service.metric("brain_series_total", outcome="reported") == 2)
            assert report(service)["objects_waiting"] > len(destination.requests[0][1])
        assert len(destination.requests) == 1
        # An administrator need not wait for it.
        assert service.client.post("/deliveries/retry").status_code == 200
        wait_until(lambda: settled(service))


def test_a_destination_that_is_away_gets_them_after_a_restart_of_the_service(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    away = "http://127.0.0.1:9/dicom-web"
    with serving(pacs_settings(model_store, tmp_path, away), FakeRuntimes()) as service:
        studies = {send(service) for _ in range(3)}
        wait_until(lambda: service.metric("brain_series_total", outcome="reported") == 3)
    with serve(model_store, tmp_path, destination) as service:
        wait_until(lambda: settled(service))
    assert {item.StudyInstanceUID for item in destination.of_kind("SR")} == studies
    assert len(destination.stored) == len(destination.objects)


def test_a_clock_that_is_set_back_holds_up_no_result(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: destination.requests)
        wait_until(lambda: report(service)["series_waiting"] == 0)
        for module in ("delivery", "ledger", "outbox"):
            monkeypatch.setattr(f"service.pacs.{module}.time", lambda: time() - 1000)
        destination.status = 200
        wait_until(lambda: settled(service))
    assert destination.of_kind("SR")


def test_what_is_refused_is_parked_and_can_be_tried_again(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination.status = 400
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: settled(service))
        # Together first, then each alone, to find out which of them is not wanted.
        together, *alone = [sops for _, sops in destination.requests]
        assert [[sop] for sop in together] == alone
        assert report(service)["objects_dead"] == len(together)
        assert report(service)["destination"] == "ok"
        assert service.metric("brain_outbox_failed_total", kind="SR") == 1
        shown = Deliveries.model_validate_json(service.client.get("/deliveries").content)
        assert {item.reason for item in shown.refused} == {"http_400"}
        assert {item.kind for item in shown.refused} >= {"SR", "OT"}
        with monkeypatch.context() as patch:
            patch.setattr(deliveries, "LISTED", 1)
            part = service.client.get("/deliveries").json()
        assert len(part["refused"]) == 1 < part["objects_dead"] == len(together)
        destination.status = 200
        answer = service.client.post("/deliveries/retry")
        assert Retried.model_validate_json(answer.content).objects == len(together)
        wait_until(lambda: settled(service))
        assert report(service)["objects_dead"] == 0
    assert sorted(destination.objects) == sorted(together)


def test_one_refused_object_does_not_hold_up_its_neighbours(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: destination.requests)
        sops = destination.requests[0][1]
        destination.reasons[sops[0]] = 0x0122
        destination.status = 200
        wait_until(lambda: settled(service))
        (dead,) = service.client.get("/deliveries").json()["refused"]
    assert (dead["reason"], dead["request_id"]) == ("refused_0122", VISIT)
    # What waits for the destination is as together in each attempt as it was in the first.
    assert all(names == sops for _, names in destination.requests)
    assert list(destination.objects) == sops[1:]


def test_results_that_always_fail_hold_up_no_other(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """Nor what of themselves would be taken alone."""
    bad: set[str] = set()
    destination.fails = lambda received: any(
        item.Modality == "SEG" and item.StudyInstanceUID in bad for item in received
    )

    def taken() -> set[str]:
        return {item.StudyInstanceUID for item in destination.of_kind("SR")}

    with serve(model_store, tmp_path, destination) as service:
        bad |= {send(service) for _ in range(2)}
        wait_until(lambda: len(destination.requests) >= 3)
        good: set[str] = set()
        while not taken() >= bad and len(good) < 3 * MAX_STRIKES:
            good.add(send(service))
            wait_until(lambda: taken() >= good, 20)
        assert len(good) >= MAX_STRIKES
        wait_until(lambda: report(service)["objects_waiting"] == 2)
        assert report(service)["destination"] == "ok"
        # Nor do they put off what comes anew.
        send(service)
        wait_until(lambda: len(taken()) == len(good | bad) + 1)
        assert report(service)["destination"] == "ok"
        bad.clear()
        wait_until(lambda: settled(service))


def test_what_is_sent_alone_is_not_hastened_with_the_rest(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        for name in ("a", "b"):
            made = [MadeObject("SR", "1.2", name, b"content")]
            box.post(
                Waiting(name, 0, None, None, "request", {}), "model", [Instance(name, b"")], made
            )
        (first,) = box.next()
        box.separate([first])
        (second,) = box.next()
        assert (first.sop, second.sop) == ("a", "b")
        box.postpone({first: "http_503", second: "http_503"}, 3600)
        assert box.next() == []
        box.hasten()
        (due,) = box.next()
        assert due.sop == "b"
        box.remove([due])
        assert box.next() == []


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "delivered"])
def test_what_is_settled_stays_so_though_its_file_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, parks: bool
) -> None:
    def fail(*_: object) -> list[str]:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Ledger, "unused", fail)
    with outbox(tmp_path) as box:
        made = [MadeObject("SR", "1.2", "a", b"content")]
        box.post(Waiting("a", 0, None, None, "request", {}), "model", [Instance("a", b"")], made)
        parcels = box.next()
        if parks:
            box.park(parcels, "refused_0122")
        else:
            box.remove(parcels)
        assert box.next() == []
        assert [item.sop for item in box.dead(9)] == ["a"] * parks
    assert "could not be removed" in caplog.text


def test_the_spool_is_bounded_though_refused_results_stay(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    """The oldest refused result makes room for new work."""
    destination.status = 400
    changes = {
        "spool_max_bytes": 3 * 1024**2,
        "stow_max_body_bytes": 2 * 1024**2,
        "stow_max_instance_bytes": 2 * 1024**2,
        "series_keep_seconds": 0,
    }
    with serve(model_store, tmp_path, destination, **changes) as service:
        for _ in range(6):
            send(service)
            wait_until(lambda: settled(service))
        assert report(service)["spool_bytes"] <= 3 * 1024**2
        assert (
            0
            < report(service)["objects_dead"]
            < service.metric("brain_outbox_failed_total", kind="SR")
            + service.metric("brain_outbox_failed_total", kind="OT")
        )


def test_a_refused_object_does_not_keep_its_result_in_the_spool(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacs.analysis.EXPIRE_SECONDS", 0.05)
    destination.status = 503
    with serve(model_store, tmp_path, destination, series_keep_seconds=0) as service:
        send(service)
        wait_until(lambda: destination.requests)
        total = report(service)["spool_bytes"]
        sops = destination.requests[0][1]
        destination.reasons[sops[-1]] = 0x0122
        destination.status = 200
        wait_until(lambda: settled(service))
        wait_until(lambda: 0 < report(service)["spool_bytes"] < total / 2)
        destination.reasons.clear()
        assert service.client.post("/deliveries/retry").json()["objects"] == 1
        wait_until(lambda: settled(service) and report(service)["spool_bytes"] == 0)
    assert sorted(destination.objects) == sorted(sops)


def test_what_makes_room_by_itself_does_not_count_as_waiting(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    def waiting(service: Service) -> float:
        service.client.get("/metrics")
        return service.metric("brain_spool_waiting_bytes")

    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: destination.requests)
        assert 0 < waiting(service) < report(service)["spool_bytes"]
        destination.status = 400
        wait_until(lambda: settled(service))
        assert waiting(service) == 0
        assert report(service)["spool_bytes"] > 0


def answer(status: int, content: Any = None, text: str | None = None) -> httpx.Response:
    if text is not None:
        return httpx.Response(status, text=text)
    return httpx.Response(status, json=content) if content is not None else httpx.Response(status)


def failed(**reasons: int) -> dict[str, Any]:
    items = [
        {"00081155": {"vr": "UI", "Value": [sop]}, "00081197": {"vr": "US", "Value": [reason]}}
        for sop, reason in reasons.items()
    ]
    return {"00081198": {"vr": "SQ", "Value": items}}


@pytest.mark.parametrize(
    ("response", "delivered", "refused", "later"),
    [
        (answer(200), ["a", "b"], {}, {}),
        (answer(200, text="<xml/>"), ["a", "b"], {}, {}),
        (answer(202, {"00081198": {"vr": "SQ"}}), ["a", "b"], {}, {}),
        (answer(202, {"00081198": {"vr": "SQ", "Value": [{}]}}), ["a", "b"], {}, {}),
        (answer(202, failed(a=0x0122)), ["b"], {"a": "refused_0122"}, {}),
        (answer(200, failed(a=0xA700)), ["b"], {}, {"a": "out_of_resources"}),
        (answer(409, failed(a=0x0111, b=0xC000)), ["a"], {"b": "refused_c000"}, {}),
        (answer(409, failed(a=0x0111, b=0x0111)), ["a", "b"], {}, {}),
        (answer(503), [], {}, {"a": "http_503", "b": "http_503"}),
        (answer(301), [], {}, {"a": "http_301", "b": "http_301"}),
    ],
    ids=[
        "no dataset",
        "XML",
        "empty sequence",
        "empty item",
        "one refused",
        "no room for one",
        "one there already",
        "all there already",
        "busy",
        "redirect",
    ],
)
def test_what_an_answer_means(
    response: httpx.Response, delivered: list[str], refused: Any, later: Any
) -> None:
    verdict = judge(response, ["a", "b"])
    assert (verdict.delivered, verdict.refused, verdict.later) == (delivered, refused, later)
    assert not verdict.separate


def test_a_conflict_without_a_word_is_looked_into() -> None:
    assert judge(answer(409), ["a", "b"]).separate
    assert judge(answer(409), ["a"]).refused == {"a": "http_409"}


def confirmed(*sops: str, others: int = 0, **reasons: int) -> dict[str, Any]:
    items = [{"00081155": {"vr": "UI", "Value": [sop]}} for sop in sops]
    content = {**failed(**reasons), "00081199": {"vr": "SQ", "Value": items}}
    if others:
        reason = {"00081197": {"vr": "US", "Value": [others]}}
        content["0008119A"] = {"vr": "SQ", "Value": [reason]}
    return content


def test_what_is_not_confirmed_is_not_delivered() -> None:
    verdict = judge(answer(202, confirmed("a", c=0x0122)), ["a", "b", "c"])
    assert (verdict.delivered, verdict.later, verdict.separate) == (["a"], {}, True)
    assert verdict.refused == {"c": "refused_0122"}
    # A destination may give an object a UID of its own: sent alone, it is that one.
    assert judge(answer(200, confirmed("x")), ["b"]).delivered == ["b"]
    verdict = judge(answer(202, confirmed("a", others=0xC000)), ["a", "b"])
    assert (verdict.delivered, verdict.separate) == (["a"], True)
    assert judge(answer(409, confirmed(others=0xC000)), ["a", "b"]).separate
    assert judge(answer(409, confirmed(others=0xC000)), ["b"]).refused == {"b": "refused_c000"}
    assert judge(answer(409, confirmed(others=0xA700)), ["b"]).later == {"b": "out_of_resources"}


def test_waits_grow_up_to_a_limit_and_never_in_step() -> None:
    waits = [backoff(failures, 1, 60) for failures in range(1, 40)]
    for failures, seconds in enumerate(waits, 1):
        expected = min(60, 2 ** (failures - 1))
        assert expected * (1 - JITTER) <= seconds <= expected * (1 + JITTER)
    assert len(set(waits)) == len(waits)


def test_the_oldest_refused_result_makes_room_and_a_retry_starts_anew(tmp_path: Path) -> None:
    with outbox(tmp_path) as box:
        for name in ("a", "b"):
            made = [MadeObject("SR", "1.2", name, b"content")]
            box.post(
                Waiting(name, 0, None, None, "request", {}), "model", [Instance(name, b"")], made
            )
        for _ in range(2):
            parcels = box.next()
            box.separate(parcels)
            box.park(parcels, "refused_0122")
        box.spare(1)
        assert [item.sop for item in box.dead(9)] == ["b"]
        assert box.retry() == 1
        (parcel,) = box.next()
        assert (parcel.sop, parcel.attempts, parcel.alone) == ("b", 0, False)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407, 408, 425, 429, 500, 502, 503])
def test_refusals_that_say_nothing_of_the_object_lose_none(status: int) -> None:
    verdict = judge(answer(status), ["a"])
    assert verdict.later == {"a": f"http_{status}"}
    assert verdict.unreachable
    assert verdict.refused == {}


@pytest.mark.parametrize("reason", [0xA700, 0xA701, 0xA7FF])
def test_a_destination_without_room_gets_it_later(reason: int) -> None:
    verdict = judge(answer(202, failed(a=reason)), ["a"])
    assert (verdict.later, verdict.refused) == ({"a": "out_of_resources"}, {})


def test_a_destination_whose_certificate_is_not_trusted_gets_nothing(
    model_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    destination = Destination(
        pacs_settings(model_store, tmp_path, "https://pacs.example/dicom-web")
    )
    context = destination._client._transport._pool._ssl_context  # type: ignore[attr-defined]

    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    # No proxy that happens to be in the environment.
    assert destination._client._mounts == {}


def test_each_attempt_to_deliver_is_in_the_audit_log(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    log = tmp_path / "audit.log"
    destination.status = 503
    with serve(model_store, tmp_path, destination, audit_log=log) as service:
        assert stow(service.client, [b"junk"]).status_code == 409
        send(service)
        wait_until(lambda: len(destination.requests) > 1)
        destination.status = 400
        wait_until(lambda: settled(service))

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    found = {line["result"] for line in lines if line["action"] == "deliver"}
    assert found == {"http_503", "http_400"}
    junk, sound = [line for line in lines if line["action"] == "store"]
    assert (junk["instance"], junk["file"]) == (None, sha256(b"junk").hexdigest())
    assert (len(sound["instance"]), sound["file"]) == (64, None)


def test_a_disk_that_does_not_take_a_retry_is_told(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Outbox) -> int:
        raise SpoolFull("the spool cannot be written to")

    monkeypatch.setattr(Outbox, "retry", fail)
    with serve(model_store, tmp_path, destination) as service:
        answer = service.client.post("/deliveries/retry")
        document = service.client.get("/openapi.json").json()
    assert (answer.status_code, answer.json()["code"]) == (503, "spool_unreachable")
    assert "Retry-After" in answer.headers
    assert "503" in document["paths"]["/deliveries/retry"]["post"]["responses"]


def test_a_result_that_cannot_be_read_for_now_is_delivered_later(
    model_store: Path, tmp_path: Path, destination: Pacs, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []
    path_open = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == SUFFIX and failures:
            number = failures.pop()
            raise OSError(number, os.strerror(number))
        return path_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    destination.status = 503
    with serve(model_store, tmp_path, destination) as service:
        send(service)
        wait_until(lambda: destination.requests)
        failures += [errno.EMFILE, errno.EIO]
        destination.status = 200
        wait_until(lambda: settled(service))
        assert failures == []
        assert report(service)["objects_dead"] == 0
    assert destination.of_kind("SR")


def test_a_result_that_cannot_be_read_is_parked(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    destination.status = 503
    log = tmp_path / "audit.log"
    with serve(model_store, tmp_path, destination, audit_log=log) as service:
        send(service)
        wait_until(lambda: destination.requests)
        for path in (tmp_path / "spool" / "segments").iterdir():
            path.write_bytes(b"")
        wait_until(lambda: settled(service))
        answer = service.client.get("/deliveries").json()
        assert {item["reason"] for item in answer["refused"]} == {"unreadable"}
        assert '"result":"unreadable"' in log.read_text()
        # With it the last thing went that the destination was left alone for.
        destination.status = 200
        send(service)
        wait_until(lambda: destination.stored, 20)
