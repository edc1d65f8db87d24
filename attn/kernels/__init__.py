"""The implementations of attention behind `attn.attend`: one layout of inputs, one contract, several kernels.

`validation` turns the arguments of `attend` into `inputs.Inputs`, `selection` chooses a kernel, and the kernels (`dense`,
`pooled`, `chunked`, `fused`) compute the output. All but `fused` are built from `tiles`.
"""
