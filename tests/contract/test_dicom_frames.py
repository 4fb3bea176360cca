"""Objects of several frames: each becomes the slice that it is, with what the object says of it."""

import gc
import io
import sys
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended, fragment_frame, itemize_fragment
from pydicom.uid import UID, EnhancedMRImageStorage, JPEG2000Lossless, JPEGBaseline8Bit

from contract.decoding import decode, open_source
from contract.dicom import DicomObject, open_dicom
from contract.errors import (
    DecodeError,
    MultiFrame,
    TooManyFrames,
    TruncatedImage,
    UndecodableImage,
)
from contract.policy import DEFAULT_POLICY, Policy
from contract.source import slices
from tests.contract.rendering import difference
from tests.contract.samples import (
    OBJECTS,
    RANGE,
    SYNTAXES,
    encode,
    grey_slice,
    mr_frames,
    mr_object,
)

GREY = grey_slice()
FRAMES = [GREY, 255 - GREY, GREY[::-1].copy(), GREY[:, ::-1].copy(), GREY // 2]


def opened(data: bytes, policy: Policy = DEFAULT_POLICY) -> DicomObject:
    return open_dicom(data, policy)


def item(**attributes: object) -> list[Dataset]:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return [dataset]


def enhanced(frames: list[NDArray[np.uint8]]) -> bytes:
    """An Enhanced MR object whose frames differ in window, rescale and place, and share the rest."""
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[0.5, 0.5], SliceThickness=3)
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.FrameVOILUTSequence = item(WindowCenter=128, WindowWidth=256)
    own = []
    for number in range(len(frames)):
        groups = Dataset()
        groups.PlanePositionSequence = item(ImagePositionPatient=[0, 0, 3 * number])
        groups.PixelValueTransformationSequence = item(RescaleSlope=1, RescaleIntercept=10 * number)
        if number == 1:
            groups.FrameVOILUTSequence = item(WindowCenter=512, WindowWidth=1024)
        own.append(groups)
    return mr_frames(
        frames,
        attributes={
            "SOPClassUID": EnhancedMRImageStorage,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": own,
        },
    )


class TestClassic:
    @pytest.mark.parametrize("name", SYNTAXES)
    def test_each_frame_is_a_slice(self, name: str) -> None:
        source = opened(mr_frames(FRAMES, SYNTAXES[name], attributes=RANGE))
        assert source.frames == len(FRAMES)
        for frame, result in enumerate(slices(source), start=1):
            assert difference(result.pixels, FRAMES[frame - 1]) <= 1
            assert result.dicom is not None
            assert result.dicom.frame == frame
            assert result.dicom == source.reference(frame)

    def test_lossy_frames(self) -> None:
        source = opened(mr_frames(FRAMES, JPEGBaseline8Bit, attributes=RANGE))
        for frame in (5, 1, 3):
            assert difference(source.slice(frame).pixels, FRAMES[frame - 1]) <= 12

    @pytest.mark.parametrize("shape", [(3, 5), (1, 3)], ids=str)
    @pytest.mark.parametrize("name", ["explicit", "big-endian", "deflated"])
    def test_frames_of_odd_length(self, name: str, shape: tuple[int, int]) -> None:
        count = shape[0] * shape[1]
        frames = [np.arange(k, k + count, dtype=np.uint8).reshape(shape) for k in (0, 50, 100)]
        source = opened(mr_frames(frames, SYNTAXES[name], attributes=RANGE))
        for frame in (1, 2, 3):
            assert difference(source.slice(frame).pixels, frames[frame - 1]) <= 1

    def test_one_position_is_not_that_of_every_frame(self) -> None:
        attributes = {
            "ImagePositionPatient": [1, 2, 3],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        source = opened(mr_frames(FRAMES[:2], attributes=attributes))
        assert source.reference(2).position_mm is None
        assert opened(mr_object(GREY, attributes=attributes)).reference(1).position_mm is not None

    def test_decode_is_for_one_slice(self) -> None:
        with pytest.raises(MultiFrame):
            decode(mr_frames(FRAMES[:2]))
        assert decode(mr_object(GREY)).pixels.shape == GREY.shape

    def test_a_picture_is_a_source_of_one_slice(self) -> None:
        source = open_source(encode(GREY, "PNG"))
        assert source.frames == 1
        assert source.header is None
        assert source.reference(1) is None
        assert [difference(result.pixels, GREY) for result in slices(source)] == [0]


class TestEnhanced:
    def test_every_frame_has_its_own_window_and_rescale(self) -> None:
        frames = [np.array([[60, 0]], np.uint8)] * 3
        levels = [int(result.pixels[0, 0]) for result in slices(opened(enhanced(frames)))]
        # 60, 70 and 80: of 256, of 1024, and of 256 again.
        assert levels == pytest.approx([60, 70 / 4, 80], abs=1)

    def test_every_frame_has_its_place(self) -> None:
        source = opened(enhanced(FRAMES))
        for frame in range(1, source.frames + 1):
            place = source.reference(frame)
            assert place.frame == frame
            assert place.position_mm == pytest.approx((0, 0, 3 * (frame - 1)))
            assert place.orientation == pytest.approx((1, 0, 0, 0, 1, 0))
            assert place.pixel_spacing_mm == pytest.approx((0.5, 0.5))

    @pytest.mark.parametrize("order", [(2, 1, 3), (3, 2, 1, 3)], ids=str)
    def test_no_frame_takes_over_what_another_says(self, order: tuple[int, ...]) -> None:
        data = enhanced([GREY] * 3)
        dataset = dcmread(io.BytesIO(data))
        # The last frame says nothing of itself.
        dataset.PerFrameFunctionalGroupsSequence[2] = Dataset()
        del dataset.SharedFunctionalGroupsSequence
        changed = io.BytesIO()
        dataset.save_as(changed)
        alone = [opened(changed.getvalue()).slice(frame) for frame in (1, 2, 3)]
        source = opened(changed.getvalue())
        for frame in order:
            result = source.slice(frame)
            assert difference(result.pixels, alone[frame - 1].pixels) == 0
            assert result.dicom == alone[frame - 1].dicom == source.reference(frame)
        assert alone[2].dicom is not None
        assert alone[2].dicom.position_mm is None

    def test_fewer_functional_groups_than_frames(self) -> None:
        source = opened(enhanced(FRAMES))
        short = opened(mr_frames(FRAMES, attributes={"PerFrameFunctionalGroupsSequence": []}))
        assert short.reference(5).position_mm is None
        assert source.reference(5).position_mm is not None


class TestPlace:
    def test_of_a_real_object(self) -> None:
        path = next(path for path in OBJECTS if path.stem == "axial_t1_defaced_0220")
        dataset = dcmread(path)
        place = opened(path.read_bytes()).reference(1)
        assert place.position_mm == pytest.approx(dataset.ImagePositionPatient)
        assert place.orientation == pytest.approx(dataset.ImageOrientationPatient)
        assert place.instance_number == dataset.InstanceNumber

    @pytest.mark.parametrize(
        "attributes",
        [
            {"ImagePositionPatient": [1, 2]},
            {"ImagePositionPatient": [1, 2, float("inf")]},
            {"ImageOrientationPatient": [1, 0, 0, 0, 1]},
            {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
            {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
            {"ImageOrientationPatient": [1, 0, 0, 0.28, 0.96, 0]},
            {"ImageOrientationPatient": [0.9, 0, 0, 0, 1, 0]},
            {},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_nothing(self, attributes: dict[str, list[float]]) -> None:
        place = opened(mr_object(GREY, attributes=attributes)).reference(1)
        assert (place.position_mm, place.orientation, place.instance_number) == (None, None, None)


class TestHeader:
    def test_is_there_when_asked_for_and_holds_no_pixels(self) -> None:
        data = OBJECTS[0].read_bytes()
        source = open_source(data, keep=["PatientID"])
        assert source.header is not None
        assert [element.keyword for element in source.header] == ["PatientID"]
        assert source.header.PatientID == dcmread(OBJECTS[0]).PatientID
        assert open_source(data).header is None

    def test_keeps_nothing_of_the_file(self) -> None:
        file = OBJECTS[0].read_bytes()
        before = sys.getrefcount(file)
        header = open_source(file, keep=["PatientID"]).header
        gc.collect()
        assert header is not None
        assert sys.getrefcount(file) == before

    @pytest.mark.parametrize("name", ["deflated", "big-endian", "jpeg2000"])
    def test_of_other_syntaxes(self, name: str) -> None:
        data = mr_frames(FRAMES, SYNTAXES[name], attributes={"StudyID": "7"})
        header = open_source(data, keep=["StudyID"]).header
        assert header is not None
        assert header.StudyID == "7"


class TestRefused:
    @pytest.mark.parametrize("name", SYNTAXES)
    def test_the_limit_of_frames_is_exact(self, name: str) -> None:
        data = mr_frames(FRAMES, SYNTAXES[name])
        assert opened(data, Policy(max_frames=5)).frames == 5
        with pytest.raises(TooManyFrames):
            opened(data, Policy(max_frames=4))

    def test_the_limit_of_pixels_is_for_one_frame(self) -> None:
        source = opened(mr_frames(FRAMES, attributes=RANGE), Policy(max_pixels=GREY.size))
        assert [result.pixels.size for result in slices(source)] == [GREY.size] * 5

    @pytest.mark.parametrize("name", ["explicit", "jpeg2000", "rle"])
    def test_fewer_frames_than_stated(self, name: str) -> None:
        with pytest.raises((TruncatedImage, UndecodableImage)):
            opened(mr_frames(FRAMES, SYNTAXES[name], attributes={"NumberOfFrames": 6}))

    def test_one_damaged_frame_leaves_the_others(self) -> None:
        streams = [encode(frame, "JPEG2000", no_jp2=True) for frame in FRAMES]
        streams[2] = streams[2][:60]
        data = mr_frames(
            FRAMES, JPEG2000Lossless, attributes={**RANGE, "PixelData": encapsulate(streams)}
        )
        source = opened(data)
        with pytest.raises(DecodeError):
            source.slice(3)
        for frame in (1, 2, 4, 5):
            assert difference(source.slice(frame).pixels, FRAMES[frame - 1]) <= 1


class TestFragments:
    STREAMS: ClassVar = [encode(frame, "JPEG2000", no_jp2=True) for frame in FRAMES]

    def object_of(self, pixel_data: bytes, **more: bytes) -> bytes:
        attributes = {**RANGE, "PixelData": pixel_data, **more}
        return mr_frames(FRAMES, JPEG2000Lossless, attributes=attributes)

    def check(self, data: bytes) -> None:
        for result, expected in zip(slices(opened(data)), FRAMES, strict=True):
            assert difference(result.pixels, expected) <= 1

    @pytest.mark.parametrize("has_bot", [True, False], ids=["offsets", "no offsets"])
    @pytest.mark.parametrize("fragments", [1, 3])
    def test_in_a_basic_offset_table_or_none(self, fragments: int, has_bot: bool) -> None:
        data = encapsulate(self.STREAMS, fragments_per_frame=fragments, has_bot=has_bot)
        self.check(self.object_of(data))

    def test_in_an_extended_offset_table(self) -> None:
        data, offsets, lengths = encapsulate_extended(self.STREAMS)
        self.check(
            self.object_of(data, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)
        )

    def test_frames_that_overlap_are_refused(self) -> None:
        data, offsets, lengths = encapsulate_extended(self.STREAMS)
        whole = (len(data) - 8).to_bytes(8, "little") * 5
        with pytest.raises(UndecodableImage):
            opened(
                self.object_of(
                    data, ExtendedOffsetTable=bytes(40), ExtendedOffsetTableLengths=whole
                )
            )
        assert lengths != whole
        assert offsets != bytes(40)

    def test_one_frame_in_ten_thousand_fragments(self) -> None:
        stream = encode(GREY, "JPEG2000", no_jp2=True)
        pieces = list(fragment_frame(stream, min(10_000, len(stream) // 2)))
        table = b"\xfe\xff\x00\xe0\0\0\0\0"
        data = table + b"".join(itemize_fragment(piece) for piece in pieces)
        result = opened(
            mr_object(GREY, JPEG2000Lossless, attributes={**RANGE, "PixelData": data})
        ).slice(1)
        assert difference(result.pixels, GREY) <= 1


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES.keys())
def test_a_real_object_as_two_frames(syntax: UID) -> None:
    """A real scanner's attributes and values, once more as a second frame."""
    dataset = dcmread(OBJECTS[-1])
    values = np.asarray(dataset.pixel_array)
    single = decode(OBJECTS[-1].read_bytes()).pixels
    attributes = {
        keyword: dataset[keyword].value
        for keyword in ("WindowCenter", "WindowWidth", "PixelSpacing")
        if keyword in dataset
    }
    data = mr_frames(
        [values, values], syntax, bits_stored=int(dataset.BitsStored), attributes=attributes
    )
    for result in slices(opened(data)):
        assert difference(result.pixels, single) <= 1
