"""Results as DICOM objects: structured report, Secondary Capture and segmentation.

Only :mod:`service.dicom.findings` is light. The other modules import pydicom and highdicom, so they are
imported on first use and in a thread (:mod:`service.dicom.answer` sees to both).
"""
