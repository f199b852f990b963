"""All mathematics of the kit: pure functions of tensors, one number per token or example, mask True = counts."""
