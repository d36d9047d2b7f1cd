"""Labelled files as people have them: read, checked, numbered, and scored; torch is not needed."""
