"""What an object says of its patient goes nowhere."""

import io
import logging
import threading
import traceback
import warnings

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from contract.errors import DecodeError
from tests.contract.rendering import decoded
from tests.contract.samples import OBJECTS, SHIPPED, write


class TestPatientData:
    PLANTED = "PLANTED^JANE"

    def planted(self) -> bytes:
        """An MR object whose patient's name is wherever one could stray to."""
        dataset = dcmread(OBJECTS[-1])
        dataset.PatientName = dataset.PatientID = dataset.InstitutionName = self.PLANTED
        dataset.StudyDescription = dataset.ImageComments = self.PLANTED
        return write(dataset, ExplicitVRLittleEndian)

    def damaged(self) -> list[bytes]:
        whole = self.planted()
        name = self.PLANTED.encode()
        text = b"LO" + len(name).to_bytes(2, "little") + name
        result = [whole, whole[: len(whole) // 2]]
        for tag, vr in [
            (b"\x28\x00\x10\x00", b"US"),  # Rows
            (b"\x28\x00\x50\x10", b"DS"),  # Window Center
            (b"\x28\x00\x30\x00", b"DS"),  # Pixel Spacing
            (b"\x28\x00\x04\x00", b"CS"),  # Photometric Interpretation
            (b"\x08\x00\x16\x00", b"UI"),  # SOP Class UID
            (b"\x08\x00\x18\x00", b"UI"),  # SOP Instance UID
            (b"\x08\x00\x60\x00", b"CS"),  # Modality
            (b"\x08\x00\x05\x00", b"CS"),  # Specific Character Set
            (b"\x02\x00\x10\x00", b"UI"),  # Transfer Syntax UID
        ]:
            start = whole.find(tag + vr)
            if start >= 0:
                end = start + 8 + int.from_bytes(whole[start + 6 : start + 8], "little")
                result.extend(
                    whole[:start] + tag + kind + text[2:] + whole[end:] for kind in (vr, b"LO")
                )
        return result

    def test_reaches_neither_errors_nor_logs_nor_warnings(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        told: list[str] = []
        objects = self.damaged()
        assert len(objects) >= 15
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for data in objects:
                    try:
                        told.append(repr(decoded(data).dicom))
                    except DecodeError as error:
                        told.extend(traceback.format_exception(error))
            told.extend(str(warning.message) for warning in caught)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        told.extend([stream.getvalue(), *capfd.readouterr()])
        assert "PLANTED" not in "".join(told)
        assert "JANE" not in "".join(told)

    def test_is_not_in_the_slice(self) -> None:
        result = decoded(self.planted())
        assert "PLANTED" not in repr(result.dicom)

    def test_warnings_stay_quiet_in_threads(self) -> None:
        """pydicom warns about these objects; not one warning may get out, or become an error."""
        data = next(path for path in SHIPPED if path.name == "MR_small_padded.dcm").read_bytes()
        expected = decoded(data).pixels
        wrong: list[str] = []

        def run() -> None:
            for _ in range(40):
                try:
                    if not np.array_equal(decoded(data).pixels, expected):
                        wrong.append("pixels")
                except DecodeError as error:
                    wrong.append(repr(error))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            threads = [threading.Thread(target=run) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=60)
        assert wrong == []
        assert [str(warning.message) for warning in caught] == []
