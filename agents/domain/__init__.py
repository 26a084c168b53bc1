"""What an agent declares about itself, as plain values free of Django."""
