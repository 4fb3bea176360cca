"""The way from a PACS and back to it: STOW-RS in, series by series, results out through an outbox.

None of it is imported where ``BRAIN_DICOMWEB_URL`` is not set.
"""
