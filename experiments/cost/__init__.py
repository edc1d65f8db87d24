"""What a run will cost, before it is trained: parameters, FLOPs, memory and disk."""
