"""What a person sees: the command line, pictures and tables."""
