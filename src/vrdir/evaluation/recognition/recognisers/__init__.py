"""Recognisers: their contracts, ONNX files, and models of other packages."""
