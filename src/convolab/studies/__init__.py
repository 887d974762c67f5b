"""Many runs, one conclusion."""
