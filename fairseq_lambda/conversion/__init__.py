"""Trained models to transformers and back; needs fairseq and transformers."""
