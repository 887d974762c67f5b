"""What a teacher asks of hand-ins: what is there, and what of it contradicts itself, the evidence or the others."""
