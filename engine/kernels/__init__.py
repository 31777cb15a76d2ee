"""Kernels, one operation per file: a public function with its reference in torch or numpy, and faster backends."""
