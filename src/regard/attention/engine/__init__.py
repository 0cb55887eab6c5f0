"""How a call gets to a backend: checked and completed, remembered, traced, and computed tile by tile."""
