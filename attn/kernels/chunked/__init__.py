"""Attention tile by tile, in memory linear in T and S: `attention` with its own backward pass, `autodiff` without one."""
