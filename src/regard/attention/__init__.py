"""The operator: attention as one function of five values. Knows tensors, knows no model."""
