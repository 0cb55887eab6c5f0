"""The C++ kernels (`regard.kernels`) as a backend."""
