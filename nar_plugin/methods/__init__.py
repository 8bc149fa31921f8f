"""The mathematics of each method: tensors in, tensors out. No line in this folder knows fairseq."""
