"""The terminal: options, progress bars, messages and errors."""
