"""What a trained classifier attends to, as a page of `attn.viewer`."""
