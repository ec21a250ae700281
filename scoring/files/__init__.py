"""Files on disk: JSON read with its fields checked, files written whole, folders locked."""
