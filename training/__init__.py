"""Offline training: from folders of labelled slices to a published model version."""
