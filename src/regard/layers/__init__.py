"""What models are built from: modules that own their parameters and call the operator."""
