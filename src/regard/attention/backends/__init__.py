"""What computes an attention. Each backend is a module of its own behind one protocol; none imports another."""
