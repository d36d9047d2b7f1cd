"""Labelled files: reading, checking, numbering and scoring. Only ``prepare`` needs torch and fairseq."""
