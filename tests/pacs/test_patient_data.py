"""Names and numbers that are planted in DICOM headers are nowhere but in the objects themselves."""

import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from pydicom.uid import generate_uid

from service.keys import Role, make_key
from tests.support.keys import write_keys
from tests.support.pacs import Instance, Pacs, form, series, stow
from tests.support.service import PATIENCE_SECONDS, process, wait_until

PLANTED = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "PID-8675309",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC-555123",
    "ReferringPhysicianName": "Quacksalber^Otto",
    "InstitutionName": "Klinik Sonnenschein",
    "StudyDescription": "Verdacht Mustermann",
    "OtherPatientIDs": "PID-2718281",
    "PatientComments": "wohnt in Entenhausen",
}
WORDS = (
    *("Mustermann", "Erika", "8675309", "19640812", "555123", "Quacksalber", "Otto^"),
    *("Sonnenschein", "2718281", "Entenhausen"),
)


def named(slices: int) -> list[Instance]:
    return series(slices, attributes=PLANTED)


def broken(instance: Instance) -> list[bytes]:
    """Damage of many kinds; pydicom quotes the values that it stumbles over."""
    data = instance.data
    cuts = [data[:size] for size in (200, 600, 1200, 2000, len(data) // 2, len(data) - 1)]
    hostile = [
        data.replace(b"19640812", b"Muster\xff\xff"),
        data.replace(b"PN\x10\x00", b"ZZ\x10\x00"),
        data.replace(b"Mustermann^Erika", b"Mustermann^\x1b$)C\xff\xfe"),
        data[:128] + b"JUNK" + b"Mustermann",
        b"Mustermann^Erika",
    ]
    return cuts + hostile


@pytest.mark.slow
def test_no_word_of_a_patient_leaves_the_objects(
    model_store: Path, tmp_path: Path, destination: Pacs
) -> None:
    presented, key = make_key("pacs-1", [Role.PREDICT, Role.ADMIN])
    keys = write_keys(tmp_path / "keys", key)
    variables = {
        "BRAIN_API_KEYS_FILE": str(keys),
        "BRAIN_DICOMWEB_URL": destination.url,
        "BRAIN_SPOOL": str(tmp_path / "spool"),
        "BRAIN_AUDIT_LOG": str(tmp_path / "audit.log"),
        "BRAIN_SERIES_QUIET_MS": "200",
        "BRAIN_DICOMWEB_RETRY_MS": "50",
        "BRAIN_LOG_LEVEL": "debug",
        "TMPDIR": str(tmp_path),
    }
    heard: list[str] = []
    destination.status = 503
    with process(model_store, tmp_path / "log", **variables) as (child, port):
        headers = {"Authorization": f"Bearer {presented}"}
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE_SECONDS
        )
        with client:
            sent = everything(client, heard)
            wait_until(lambda: client.get("/health").json()["pacs"]["objects_waiting"] >= 2)
            found = [path.name for path in tmp_path.rglob("*")]
            destination.status = 400
            wait_until(lambda: client.get("/health").json()["pacs"]["objects_dead"] >= 2)
            destination.status = 200
            heard += [client.get("/deliveries").text, client.post("/deliveries/retry").text]
            wait_until(lambda: not client.get("/health").json()["pacs"]["objects_waiting"])
            heard += [client.get(path).text for path in ("/metrics", "/health", "/models")]
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=PATIENCE_SECONDS)
    # They are where they belong, or this test would prove nothing.
    assert any(str(item.PatientName) == "Mustermann^Erika" for item in destination.of_kind("SR"))
    audit = (tmp_path / "audit.log").read_text("utf-8")
    assert audit.count('"action":"store"') > 10
    assert audit.count('"result":"delivered"') >= 2
    produced = {
        "log": (tmp_path / "log").read_text("utf-8"),
        "audit log": audit,
        "answers": "\n".join(heard),
        "file names": "\n".join([*found, *(path.name for path in tmp_path.rglob("*"))]),
        "headers to the PACS": str([headers for headers, _ in destination.requests]),
    }
    for where, text in produced.items():
        assert text
        for word in WORDS:
            assert word.lower() not in text.lower(), f"{word} in the {where}"
    uids = [uid for _, names in destination.requests for uid in names]
    uids += [uid for item in sent for uid in (item.sop, item.series, item.study)]
    assert not [uid for uid in uids if uid in produced["log"] or uid in audit]
    assert '"level": "error"' in produced["log"]
    assert readable_by_others(tmp_path / "spool") == []


def everything(client: httpx.Client, heard: list[str]) -> list[Instance]:
    """Every route, with success and in every way that fails; what is said goes to ``heard``.

    Returns:
        Whose results are delivered.
    """
    good = named(3)
    bad = [data for instance in named(2) for data in broken(instance)]
    assert stow(client, [item.data for item in good]).status_code == 200
    files = [item.data for item in good]
    answers = (
        stow(client, bad),
        stow(client, files, generate_uid()),
        stow(client, files, "Mustermann"),
        stow(client, files, headers={"Authorization": "Bearer Mustermann"}),
        stow(client, files, headers={"Accept": "text/Mustermann"}),
        client.post(
            "/dicom-web/studies", content=bad[4], headers={"Content-Type": "application/dicom"}
        ),
        client.post(
            "/dicom-web/studies", content=b"x", headers={"Content-Type": "text/Mustermann"}
        ),
        client.post(
            "/dicom-web/studies",
            content=form(files)[1][:-9],
            headers={"Content-Type": form(files)[0]},
        ),
        client.get("/dicom-web/studies/Mustermann"),
        client.get("/Mustermann", params={"name": "Mustermann"}),
    )
    # This one repeats the name of the model that an administrator asked for.
    assert client.post("/models/Mustermann/1/activate").status_code == 404
    # Success may name what it was asked; a problem repeats neither address nor body.
    heard += [answer.text for answer in answers if answer.status_code >= 300]
    accepts = ("application/json", 'multipart/related; type="application/dicom"')
    for accept in accepts:
        for data in [*files, *bad]:
            upload = [("files", ("Mustermann_Erika.dcm", data))]
            answer = client.post("/predict", files=upload, headers={"Accept": accept})
            if answer.status_code != 200:
                heard.append(answer.text.replace("Mustermann_Erika.dcm", ""))
    return good


def readable_by_others(folder: Path) -> list[str]:
    found = subprocess.run(
        ["find", str(folder), "-perm", "/077"], capture_output=True, text=True, check=True
    )
    return found.stdout.split()
