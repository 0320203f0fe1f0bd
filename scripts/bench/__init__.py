"""Benchmarks: real servers in a temporary folder, our own processes, and the machine beside every figure."""
