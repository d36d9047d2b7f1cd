"""Checkpoints on disk: read without running code, written whole, recovered after a kill, refused if they do not fit."""
