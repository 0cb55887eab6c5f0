"""Jobs: how models are trained and measured for them, and the runners that users call."""
