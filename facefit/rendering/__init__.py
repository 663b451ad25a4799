"""Differentiable rendering on tensors; knows no face: rasterize, interpolate, shade."""
