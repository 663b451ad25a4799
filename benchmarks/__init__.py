"""Measure: NoW, MICC, AFLW2000-3D, BU-3DFE, REALY, path-traced heads, synthetic truth, ablation and speed."""
