"""What products are made, and how: configuration files and their options."""
