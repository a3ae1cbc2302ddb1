"""Weights in and out: the parts of a pretrained model, and what a trained editor delivers."""
