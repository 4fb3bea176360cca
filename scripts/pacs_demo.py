"""Orthanc and the service side by side: sends a study by C-STORE and shows what comes back.

usage: python -m scripts.pacs_demo [--keep]

Both run on free ports, in a folder that is deleted at the end; --keep lets them run until Ctrl-C.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.mr_study import write_study
from scripts.orthanc import ROOT, Orthanc, Series, missing
from scripts.ports import free_port, is_ready

SLICES = ROOT / "tests" / "data" / "slices"
STUDY = {
    "Axial, with a tumour": sorted((SLICES / "glioma").glob("*.jpg")),
    "Axial, without": sorted((SLICES / "notumor").glob("*.jpg")),
}
SHOWN = (
    "Imaging Measurement Report",
    "Tracking Identifier",
    "Probability",
    '"Neoplasm of brain")=',
)
"""Lines of a report that have one of these are printed."""

PATIENCE_SECONDS = 180.0


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pacs_demo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--keep", action="store_true", help="leave both running until Ctrl-C")
    options = parser.parse_args()
    lacks = missing()
    if lacks:
        print(lacks, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="pacs-demo-") as name:
        folder = Path(name)
        port = free_port()
        with Orthanc(folder, f"http://127.0.0.1:{port}") as orthanc, service(folder, port, orthanc):
            print(f"Orthanc on {orthanc.url} (user brain-mri, password {orthanc.password})")
            print(f"service on http://127.0.0.1:{port}\n")
            files = write_study(folder, {name: list(slices) for name, slices in STUDY.items()})
            began = time.monotonic()
            orthanc.send(files)
            print(f"storescu sent {len(files)} images of {len(STUDY)} series")
            wait_for_results(orthanc, len(STUDY))
            print(f"results were there {time.monotonic() - began:.1f} s later\n")
            show(orthanc)
            if options.keep:
                print("\nCtrl-C ends it.")
                try:
                    while True:
                        time.sleep(1)
                except KeyboardInterrupt:
                    pass
    return 0


@contextmanager
def service(folder: Path, port: int, orthanc: Orthanc) -> Iterator[None]:
    """The service, in a process of its own."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")},
        **orthanc.service_settings,
        "BRAIN_PORT": str(port),
        "BRAIN_SPOOL": str(folder / "spool"),
        "BRAIN_SERIES_QUIET_MS": "1000",
        "BRAIN_AUDIT_LOG": str(folder / "audit.log"),
    }
    log = (folder / "service.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=log
    )
    try:
        end = time.monotonic() + PATIENCE_SECONDS
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit((folder / "service.log").read_text("utf-8"))
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()
        log.close()


def wait_for_results(orthanc: Orthanc, series: int) -> None:
    """Waits for a report on each series."""
    end = time.monotonic() + PATIENCE_SECONDS
    while len(orthanc.reports()) < series:
        if time.monotonic() > end:
            raise SystemExit("no results came")
        time.sleep(0.2)


def show(orthanc: Orthanc) -> None:
    """Prints the study, and what the reports say."""
    found = sorted(orthanc.series(), key=lambda one: int(one.tags.get("SeriesNumber", "0")))
    print(f"{'modality':<10}{'instances':<11}series")
    for one in found:
        tags = one.tags
        print(f"{tags['Modality']:<10}{len(one.instances):<11}{tags.get('SeriesDescription', '')}")
    for one in found:
        if one.tags["Modality"] == "SR":
            print(f"\n{report(orthanc, one)}")


def report(orthanc: Orthanc, series: Series) -> str:
    """What a structured report says, as dcmtk reads it; without what it says of images and model."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        file.write(orthanc.file(series.instances[0]))
        file.flush()
        command = ["dsrdump", "-Ph", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in text.splitlines() if any(word in line for word in SHOWN))


if __name__ == "__main__":
    sys.exit(main())
