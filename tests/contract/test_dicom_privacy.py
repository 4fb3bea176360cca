"""What an object says of its patient goes nowhere."""

import io
import logging
import traceback
import warnings

import numpy as np
import pytest

from contract.errors import DecodeError
from tests.contract.rendering import decoded
from tests.contract.samples import SHIPPED, planted, planted_and_damaged
from tests.support.threads import at_once


class TestPatientData:
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
        objects = planted_and_damaged()
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
        result = decoded(planted())
        assert "PLANTED" not in repr(result.dicom)

    def test_warnings_stay_quiet_in_threads(self) -> None:
        """pydicom warns about these objects; not one warning may get out, or become an error."""
        data = next(path for path in SHIPPED if path.name == "MR_small_padded.dcm").read_bytes()
        expected = decoded(data).pixels

        def run() -> None:
            for _ in range(40):
                assert np.array_equal(decoded(data).pixels, expected)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            at_once(*[run] * 6)
        assert [str(warning.message) for warning in caught] == []
