"""Attention kernels of hardware vendors under the contract of `attn.attend`: cuDNN on NVIDIA GPUs, splash attention on TPUs."""
