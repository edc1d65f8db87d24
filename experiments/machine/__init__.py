"""What a run uses of the machine: devices, processes and signals."""
