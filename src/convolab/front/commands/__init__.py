"""What each word on the command line does. Torch and whatever else is slow to import is imported inside the command."""
