"""The same pixels come out of every transfer syntax, depth and colour space."""

import io
import math
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
)

from contract.dicom import open_dicom
from contract.dicom_pixels import Frames
from contract.errors import TruncatedImage, UndecodableImage, UnsupportedPixels
from contract.policy import DEFAULT_POLICY
from tests.contract.rendering import ANY, decoded, difference, linear
from tests.contract.samples import (
    LOSSY,
    RANGE,
    SHIPPED,
    SYNTAXES,
    deep_slice,
    encode,
    grey_slice,
    mr_object,
)
from tests.support.programs import needs

GREY = grey_slice()
DEEP = deep_slice()


class TestRoundTrip:
    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_eight_bits(self, syntax: UID) -> None:
        result = decoded(mr_object(GREY, syntax, attributes=RANGE))
        assert difference(result.pixels, GREY) <= 1
        assert result.original_size == GREY.shape

    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_twelve_bits(self, syntax: UID) -> None:
        attributes = {"WindowCenter": 300, "WindowWidth": 600}
        result = decoded(mr_object(DEEP, syntax, bits_stored=12, attributes=attributes))
        assert difference(result.pixels, linear(DEEP, 300, 600)) <= 1

    @pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
    def test_sixteen_bits(self, syntax: UID) -> None:
        values = (GREY * np.uint16(257)).astype(np.uint16)
        attributes = {"WindowCenter": 32768, "WindowWidth": 65536}
        result = decoded(mr_object(values, syntax, attributes=attributes))
        assert difference(result.pixels, GREY) <= 1

    @pytest.mark.parametrize("name", SYNTAXES)
    @pytest.mark.parametrize("bits_stored", [12, 16])
    def test_signed(self, name: str, bits_stored: int) -> None:
        values = DEEP.astype(np.int16) - 200
        attributes = {"WindowCenter": 100, "WindowWidth": 600}
        data = mr_object(values, SYNTAXES[name], bits_stored=bits_stored, attributes=attributes)
        assert difference(decoded(data).pixels, linear(values, 100, 600)) <= 1

    def test_signed_eight_bits(self) -> None:
        values = (GREY.astype(np.int16) - 128).astype(np.int8)
        data = mr_object(values, attributes={"WindowCenter": 0, "WindowWidth": 256})
        assert difference(decoded(data).pixels, GREY) <= 1

    @pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 7)], ids=str)
    def test_odd_sizes(self, shape: tuple[int, int]) -> None:
        values = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape) * 7
        assert difference(decoded(mr_object(values, attributes=RANGE)).pixels, values) <= 1

    @pytest.mark.parametrize("name", LOSSY)
    @pytest.mark.parametrize("bits_stored", [8, 12])
    def test_lossy(self, name: str, bits_stored: int) -> None:
        values = GREY if bits_stored == 8 else GREY * np.uint16(16)
        top = 2**bits_stored
        attributes = {"WindowCenter": top // 2, "WindowWidth": top}
        data = mr_object(values, LOSSY[name], bits_stored=bits_stored, attributes=attributes)
        result = decoded(data).pixels
        assert difference(result, GREY) <= 25
        assert np.abs(result.astype(int) - GREY).mean() < 1.5

    @pytest.mark.parametrize("number", range(1, 8))
    @needs("dcmcjpeg")
    def test_every_selection_value_of_lossless_jpeg(self, number: int, tmp_path: Path) -> None:
        source, target = tmp_path / "source.dcm", tmp_path / "target.dcm"
        attributes = {"WindowCenter": 300, "WindowWidth": 600}
        source.write_bytes(mr_object(DEEP, bits_stored=12, attributes=attributes))
        options = ["+el", "+sv", str(number)]
        subprocess.run(["dcmcjpeg", *options, source, target], check=True, capture_output=True)
        assert dcmread(target).file_meta.TransferSyntaxUID == JPEGLossless
        result = decoded(target.read_bytes())
        assert difference(result.pixels, linear(DEEP, 300, 600)) <= 1

    @needs("dcmdjpeg")
    def test_twelve_bits_of_jpeg_extended_are_those_of_dcmtk(self, tmp_path: Path) -> None:
        """pydicom reads them with nothing that may ship, so that it is no reference."""
        path = next(path for path in SHIPPED if path.name == "JPGExtended.dcm")
        target = tmp_path / "plain.dcm"
        subprocess.run(["dcmdjpeg", path, target], check=True, capture_output=True)
        expected = open_dicom(target.read_bytes(), ANY).slice(1)
        found = open_dicom(path.read_bytes(), ANY).slice(1)
        assert difference(found.pixels, expected.pixels) == 0

    def test_eight_bits_of_jpeg_extended(self) -> None:
        result = decoded(mr_object(GREY, JPEGExtended12Bit, attributes=RANGE)).pixels
        assert difference(result, GREY) <= 25
        assert np.abs(result.astype(int) - GREY).mean() < 1.5

    @pytest.mark.parametrize(("depth", "allocated"), [(10, 16), (16, 16), (12, 8)])
    def test_other_depths_of_jpeg_extended_are_refused(self, depth: int, allocated: int) -> None:
        """It has 8 or 12 bits (ITU-T T.81 (09/92), B.2.2), and no more than the object has room for."""
        dataset = dcmread(next(path for path in SHIPPED if path.name == "JPGExtended.dcm"))
        start = dataset.PixelData.index(b"\xff\xc1") + 4
        assert dataset.PixelData[start] == 12
        dataset.PixelData = (
            dataset.PixelData[:start] + bytes([depth]) + dataset.PixelData[start + 1 :]
        )
        dataset.BitsAllocated, dataset.BitsStored = allocated, min(12, allocated)
        dataset.HighBit = dataset.BitsStored - 1
        with pytest.raises(UndecodableImage, match="depth"):
            Frames(dataset, DEFAULT_POLICY).stored_values(1)

    def test_jpeg2000_in_a_jp2_file(self) -> None:
        stream = encode(GREY, "JPEG2000")
        assert stream[4:8] == b"jP  "
        attributes = {**RANGE, "PixelData": encapsulate([stream])}
        result = decoded(mr_object(GREY, JPEG2000Lossless, attributes=attributes))
        assert difference(result.pixels, GREY) <= 1

    @pytest.mark.parametrize("name", ["JPEG2000.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
    def test_signs_are_those_of_pydicom(self, name: str) -> None:
        """Streams that say something else of their sign than their objects do."""
        path = next(path for path in SHIPPED if path.name == name)
        dataset = dcmread(path)
        values, _ = Frames(dcmread(path), DEFAULT_POLICY).stored_values(1)
        assert np.array_equal(values, dataset.pixel_array)

    def test_jpeg_baseline(self) -> None:
        result = decoded(mr_object(GREY, JPEGBaseline8Bit, attributes=RANGE))
        assert difference(result.pixels, GREY) <= 12
        assert np.abs(result.pixels.astype(int) - GREY).mean() < 1

    @pytest.mark.parametrize(
        "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"]
    )
    def test_overlays_in_unused_bits_are_ignored(self, syntax: UID) -> None:
        values = DEEP | np.uint16(0xF000)
        attributes = {"WindowCenter": 300, "WindowWidth": 600}
        result = decoded(mr_object(values, syntax, bits_stored=12, attributes=attributes))
        assert difference(result.pixels, linear(DEEP, 300, 600)) <= 1

    def test_a_missing_transfer_syntax_is_guessed(self) -> None:
        path = next(path for path in SHIPPED if path.name == "MR_small.dcm")
        dataset = dcmread(path)
        del dataset.file_meta.TransferSyntaxUID
        file = io.BytesIO()
        dataset.save_as(file, implicit_vr=False, little_endian=True)
        assert difference(decoded(file.getvalue()).pixels, decoded(path.read_bytes()).pixels) == 0


class TestColour:
    COLOURS = np.array(
        [(170, 120, 120), (120, 170, 120), (120, 120, 170), (255, 255, 255)], np.uint8
    )
    """Faint enough for a tint of grey."""
    COLOURS = np.tile(np.repeat(COLOURS, 16, axis=0), (48, 1, 1))
    LUMA = np.tile(np.repeat(np.array([135, 149, 126, 255]), 16), (48, 1))

    @pytest.mark.parametrize("name", SYNTAXES)
    def test_rgb(self, name: str) -> None:
        assert difference(decoded(mr_object(self.COLOURS, SYNTAXES[name])).pixels, self.LUMA) <= 1

    def test_two_pixels_that_share_their_colour(self) -> None:
        """Two values a pixel in place of three (PS3.3 2024e, C.7.6.3.1.2)."""
        grey = self.LUMA.astype(np.uint8)
        pairs = np.full((*grey.shape, 2), 128, np.uint8)
        pairs[..., 0] = grey
        # Y1 Y2 Cb Cr
        stored = pairs.reshape(-1, 2, 2).transpose(0, 2, 1).tobytes()
        attributes = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": stored}
        data = mr_object(self.COLOURS, attributes=attributes)
        assert difference(decoded(data).pixels, grey) <= 1
        with pytest.raises(TruncatedImage):
            decoded(mr_object(self.COLOURS, attributes=attributes | {"PixelData": stored[:-2]}))

    @pytest.mark.parametrize(
        ("photometric", "syntax"), [("YBR_RCT", JPEG2000Lossless), ("YBR_ICT", JPEG2000)]
    )
    def test_colour_transforms_of_jpeg2000(self, photometric: str, syntax: UID) -> None:
        image = Image.fromarray(self.COLOURS)
        stream = encode(
            image, "JPEG2000", no_jp2=True, irreversible=photometric == "YBR_ICT", mct=1
        )
        attributes = {
            "PhotometricInterpretation": photometric,
            "PixelData": encapsulate([stream]),
        }
        result = decoded(mr_object(self.COLOURS, syntax, attributes=attributes)).pixels
        assert difference(result, self.LUMA) <= 3

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit], ids=["50", "51"])
    @pytest.mark.parametrize("stated", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    @pytest.mark.parametrize(
        ("options", "marker"),
        [
            pytest.param({"subsampling": 0}, b"JFIF", id="JFIF"),
            pytest.param({"subsampling": 1}, b"JFIF", id="JFIF 4:2:2"),
            pytest.param({"subsampling": 2}, b"JFIF", id="JFIF 4:2:0"),
            pytest.param({"keep_rgb": True}, b"Adobe", id="Adobe RGB"),
        ],
    )
    def test_a_lossy_jpeg_says_what_its_colours_are(
        self, options: dict[str, Any], marker: bytes, stated: str, syntax: UID
    ) -> None:
        stream = encode(self.COLOURS, "JPEG", quality=95, **options)
        assert marker in stream
        attributes = {"PhotometricInterpretation": stated, "PixelData": encapsulate([stream])}
        result = decoded(mr_object(self.COLOURS, syntax, attributes=attributes)).pixels
        assert difference(result, self.LUMA) <= (1 if options.get("subsampling", 0) == 0 else 9)

    @pytest.mark.parametrize("stated", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    @pytest.mark.parametrize("transform", [0, 1, None], ids="adobe {}".format)
    def test_a_jpeg_without_jfif(self, transform: int | None, stated: str) -> None:
        """Adobe's segment counts then, and without it the attribute."""
        ycbcr = transform == 1 if transform is not None else stated != "RGB"
        stream = encode(self.COLOURS, "JPEG", quality=95, subsampling=0, keep_rgb=not ycbcr)
        start = stream.index(b"\xff\xdb")
        adobe = b"" if transform is None else b"\xff\xee\0\x0eAdobe\0\x64" + bytes(4)
        adobe += b"" if transform is None else bytes([transform])
        # Fill bytes before a marker are allowed (ITU-T T.81 (09/92), B.1.1.2).
        stream = b"\xff\xd8\xff" + adobe + stream[start:]
        attributes = {"PhotometricInterpretation": stated, "PixelData": encapsulate([stream])}
        result = decoded(mr_object(self.COLOURS, JPEGExtended12Bit, attributes=attributes))
        assert difference(result.pixels, self.LUMA) <= 1

    @pytest.mark.parametrize("stated", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT"])
    def test_a_transform_of_jpeg2000_is_undone_once(self, stated: str) -> None:
        stream = encode(self.COLOURS, "JPEG2000", no_jp2=True, mct=1)
        attributes = {"PhotometricInterpretation": stated, "PixelData": encapsulate([stream])}
        result = decoded(mr_object(self.COLOURS, JPEG2000Lossless, attributes=attributes)).pixels
        assert difference(result, self.LUMA) <= 1

    @pytest.mark.parametrize("stated", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    def test_jpeg2000_without_a_transform_is_what_its_object_says(self, stated: str) -> None:
        stored = Image.fromarray(self.COLOURS).convert("RGB" if stated == "RGB" else "YCbCr")
        stream = encode(Image.fromarray(np.asarray(stored)), "JPEG2000", no_jp2=True, mct=0)
        attributes = {"PhotometricInterpretation": stated, "PixelData": encapsulate([stream])}
        result = decoded(mr_object(self.COLOURS, JPEG2000Lossless, attributes=attributes)).pixels
        assert difference(result, self.LUMA) <= 1

    @pytest.mark.parametrize(
        ("step", "bits", "dtype"),
        [
            pytest.param(257, 16, "<u2", id="16 bits"),
            pytest.param(1, 8, "u1", id="8 bits"),
            pytest.param(1, 8, "<u2", id="8 bits in words"),
            pytest.param(1, 16, "<u2", id="8 bits stated as 16"),
        ],
    )
    def test_palette(self, step: int, bits: int, dtype: str) -> None:
        ramp = np.arange(256)[::-1] * step
        attributes = palette([256, 0, bits], ramp.astype(dtype).tobytes())
        assert difference(decoded(mr_object(GREY, attributes=attributes)).pixels, 255 - GREY) <= 1

    def test_a_palette_of_more_entries_than_8_bits_count(self) -> None:
        values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
        colours = (values.ravel() // 16).astype(np.uint8)
        attributes = palette([4096, 0, 8], colours.tobytes())
        result = decoded(mr_object(values, attributes=attributes))
        assert difference(result.pixels, values // 16) <= 1

    def test_a_palette_of_segments(self) -> None:
        # One discrete segment of one entry, and a linear one of 255 more, from 255 down to 0.
        segments = np.array([0, 1, 65535, 1, 255, 0], "<u2").tobytes()
        attributes = palette([256, 0, 16], segments, "Segmented")
        assert difference(decoded(mr_object(GREY, attributes=attributes)).pixels, 255 - GREY) <= 1

    @pytest.mark.parametrize(
        ("colour", "share", "refused"),
        [
            pytest.param((255, 180, 0), 0.014, True, id="an activation"),
            pytest.param((255, 180, 0), 0.001, True, id="a small one"),
            pytest.param((255, 180, 0), 0.0004, False, id="a letter"),
            pytest.param((165, 100, 100), 1, True, id="colours all over"),
            pytest.param((164, 100, 100), 1, False, id="a tint all over"),
        ],
    )
    @pytest.mark.parametrize("form", ["RGB", "16 bits", "12 bits in 16", "palette"])
    def test_what_is_drawn_in_colour_is_refused(
        self, form: str, colour: tuple[int, int, int], share: float, refused: bool
    ) -> None:
        """Its brightness would be that of tissue, as with a supplemental palette."""
        grey = np.linspace(0, 250, 100 * 100).astype(np.uint8).reshape(100, 100)
        drawn = np.zeros(grey.shape, np.bool_)
        drawn.ravel()[: round(share * drawn.size)] = True
        pixels = np.where(drawn[..., None], np.array(colour, np.uint8), grey[..., None])
        attributes = {}
        if form == "16 bits":
            pixels = pixels * np.uint16(257)
        elif form == "12 bits in 16":
            pixels = pixels * np.uint16(16)
        elif form == "palette":
            attributes = palette([256, 0, 8], bytes(range(256)))
            for name, value in zip(("Red", "Green", "Blue"), colour, strict=True):
                attributes[f"{name}PaletteColorLookupTableData"] = bytes([*range(255), value])
            pixels = np.where(drawn, np.uint8(255), grey)
        data = mr_object(pixels, attributes=attributes)
        with pytest.raises(UnsupportedPixels, match="coloured") if refused else nullcontext():
            decoded(data)

    def test_all_of_a_large_one_is_looked_at(self) -> None:
        """It is worked on in parts."""
        pixels = np.full((600, 600, 3), 100, np.uint8)
        pixels[-20:] = (255, 180, 0)
        with pytest.raises(UnsupportedPixels, match="coloured"):
            decoded(mr_object(pixels))

    @pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
    @pytest.mark.parametrize("quality", [5, 20, 90])
    def test_grey_that_was_saved_as_colour_is_grey(self, quality: int, subsampling: int) -> None:
        pixels = np.stack([GREY] * 3, axis=-1)
        stream = encode(pixels, "JPEG", quality=quality, subsampling=subsampling)
        attributes = {"PixelData": encapsulate([stream])}
        result = decoded(mr_object(pixels, JPEGBaseline8Bit, attributes=attributes)).pixels
        assert difference(result, np.asarray(Image.open(io.BytesIO(stream)).convert("L"))) <= 1

    @pytest.mark.parametrize("photometric", ["HSV", "CMYK", "YBR_PARTIAL_420", ""])
    def test_others_are_unsupported(self, photometric: str) -> None:
        attributes = {"PhotometricInterpretation": photometric}
        with pytest.raises((UnsupportedPixels, UndecodableImage)):
            decoded(mr_object(self.COLOURS, attributes=attributes))


def palette(descriptor: list[int], data: bytes, prefix: str = "") -> dict[str, Any]:
    """The attributes of a palette whose colours are grey."""
    attributes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        attributes[f"{colour}PaletteColorLookupTableDescriptor"] = descriptor
        attributes[f"{prefix}{colour}PaletteColorLookupTableData"] = data
    return attributes
