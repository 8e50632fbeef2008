"""What only a GPU can show: ``python -m benchmarks.gpu`` on a machine with one, without a network, in ten minutes."""
