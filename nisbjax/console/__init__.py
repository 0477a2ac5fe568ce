"""What a person reads while a mode runs: log lines, progress, quantities, tables."""
