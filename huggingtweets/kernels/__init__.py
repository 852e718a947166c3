"""What computes an operator faster than PyTorch: C++ on a CPU, Triton on CUDA."""
