"""The homework as a person hands it in: its notebooks, what must be in them, and the file that is handed in."""
