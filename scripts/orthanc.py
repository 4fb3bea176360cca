"""An Orthanc in a folder of its own, set up by ``deploy/orthanc``: for demo, tests and bench."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

from scripts.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIGURATION: Final = ROOT / "deploy" / "orthanc" / "orthanc.json"
SCRIPT: Final = ROOT / "deploy" / "orthanc" / "brain-mri.lua"
PLUGIN: Final = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
AE_TITLE: Final = "ORTHANC"
USER: Final = "brain-mri"

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0

LOG_LINES: Final = 20
"""Lines of the log that a start which failed shows: its folder may be gone by then."""

FILES_A_COMMAND: Final = 500
"""Files that one ``storescu`` sends: its arguments have a limit."""


def missing() -> str | None:
    """What has to be installed for this module, or None."""
    lacks = [name for name in ("Orthanc", "storescu", "curl") if shutil.which(name) is None]
    if not PLUGIN.exists():
        lacks.append(str(PLUGIN))
    if not lacks:
        return None
    return f"{', '.join(lacks)} missing (Debian: orthanc, orthanc-dicomweb, dcmtk, curl)"


@dataclass(frozen=True)
class Series:
    """A series that Orthanc holds.

    Attributes:
        orthanc_id: its address there.
        study: study instance UID.
        tags: main DICOM tags by keyword.
        instances: addresses of its instances.
    """

    orthanc_id: str
    study: str
    tags: dict[str, str]
    instances: list[str]


class Orthanc:
    """A context manager: Orthanc runs inside it. What it holds stays in the folder.

    Args:
        folder: of its database and its log.
        service_url: of the brain MRI service, to which it forwards.
        service_key: API key for it.
        stable_seconds: age at which a series is forwarded.
        retry_seconds: wait after a first failure; doubled each time.
        retry_max_seconds: the longest one.
        max_refusals: after so many in a row a series is given up.
        authorities: certificates that the service's is verified with; None is the configuration's.
    """

    def __init__(
        self,
        folder: Path,
        service_url: str,
        service_key: str = "none",
        stable_seconds: int = 1,
        retry_seconds: int = 1,
        retry_max_seconds: int = 5,
        max_refusals: int = 2,
        authorities: Path | None = None,
    ) -> None:
        self.http_port, self.dicom_port = free_port(), free_port()
        self.password = secrets.token_urlsafe(16)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.client = httpx.Client(
            base_url=self.url, auth=(USER, self.password), timeout=60, trust_env=False
        )
        self.log = folder / "orthanc.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "ORTHANC_STORAGE": str(folder),
            "ORTHANC_HTTP_PORT": str(self.http_port),
            "ORTHANC_DICOM_PORT": str(self.dicom_port),
            "ORTHANC_PASSWORD": self.password,
            "ORTHANC_STABLE_AGE": str(stable_seconds),
            "ORTHANC_LUA": str(SCRIPT),
            "ORTHANC_RETRY_SECONDS": str(retry_seconds),
            "ORTHANC_RETRY_MAX_SECONDS": str(retry_max_seconds),
            "ORTHANC_MAX_REFUSALS": str(max_refusals),
            "ORTHANC_BRAIN_URL": service_url,
            "ORTHANC_BRAIN_KEY": service_key,
            "TMPDIR": str(folder),
        }
        if authorities is not None:
            self._environment["ORTHANC_CA_FILE"] = str(authorities)

    @property
    def service_settings(self) -> dict[str, str]:
        """Environment of the service whose results go here."""
        return {
            "BRAIN_DICOMWEB_URL": f"{self.url}/dicom-web",
            "BRAIN_DICOMWEB_USER": USER,
            "BRAIN_DICOMWEB_PASSWORD": self.password,
        }

    def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
            RuntimeError: it ends, or does not answer in time; with the end of its log.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["Orthanc", str(CONFIGURATION)], env=self._environment, stdout=log, stderr=log
            )
        end = time.monotonic() + START_SECONDS
        try:
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"Orthanc did not start:\n{self._last_lines()}")
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops it as a service manager does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def send(self, files: Sequence[Path]) -> None:
        """Sends DICOM files by C-STORE, in their own transfer syntaxes."""
        for at in range(0, len(files), FILES_A_COMMAND):
            subprocess.run(
                [
                    *("storescu", "--aetitle", "MODALITY", "--call", AE_TITLE),
                    *("127.0.0.1", str(self.dicom_port)),
                    *map(str, files[at : at + FILES_A_COMMAND]),
                ],
                check=True,
                capture_output=True,
            )

    def upload(self, files: Iterable[bytes]) -> None:
        """Stores DICOM files by its REST API, whatever their transfer syntax."""
        for content in files:
            self.client.post("/instances", content=content).raise_for_status()

    def series(self) -> list[Series]:
        """All series."""
        found = []
        for item in self._get("/series?expand"):
            study = self._get(f"/studies/{item['ParentStudy']}")["MainDicomTags"]
            found.append(
                Series(
                    item["ID"], study["StudyInstanceUID"], item["MainDicomTags"], item["Instances"]
                )
            )
        return found

    def reports(self) -> list[Series]:
        """The series of structured reports."""
        return [one for one in self.series() if one.tags.get("Modality") == "SR"]

    def jobs(self) -> list[str]:
        """The state of each job."""
        return [item["State"] for item in self._get("/jobs?expand")]

    def count(self) -> int:
        """Number of instances."""
        return int(self._get("/statistics")["CountInstances"])

    def file(self, instance: str) -> bytes:
        """An instance's DICOM file."""
        return self.client.get(f"/instances/{instance}/file").raise_for_status().content

    def _get(self, path: str) -> Any:
        return self.client.get(path).raise_for_status().json()

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def _answers(self) -> bool:
        try:
            return self.client.get("/system").is_success
        except httpx.TransportError:
            return False
