"""Labelled files as people have them: read, checked, numbered, scored. Only ``prepare`` needs torch and fairseq."""
