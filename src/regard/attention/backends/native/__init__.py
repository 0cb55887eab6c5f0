"""Backend `native`: the C++ kernels of `regard.kernels`."""
